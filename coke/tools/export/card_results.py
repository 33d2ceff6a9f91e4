"""The section of a model card with what evaluations of its weights came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coke.tools.evaluation.figures import METRICS, Figure, Row
from coke.tools.evaluation.results import results_of
from coke.tools.export.markdown import code, last_part, table

#: Settings that say nothing about how a figure was measured, beside what the text says.
_SAID = ("baselines", "against")


def results_section(run: Path, epoch: int, weights_sha256: str) -> Iterator[str]:
    """Paragraphs and tables of Markdown: the records of ``eval.json`` that are of these weights.

    Raises:
        ValueError: the run's ``eval.json`` cannot be read.
    """
    found = [
        record
        for record in results_of(run).values()
        if (record.get("epoch"), record.get("weights_sha256")) == (epoch, weights_sha256)
    ]
    if not found:
        yield "No evaluation of these weights is recorded."
    for record in found:
        yield from _result(record)


def _result(record: Mapping[str, Any]) -> Iterator[str]:
    test, train = record["data"]["test"], record["data"]["train"]
    yield f"### {record['method']}"
    yield (
        f"Test: {record['test_images']:,} images of {code(last_part(test['location']))} (identity "
        f"{code(test['identity'])}). Labels learned from: {record['train_images']:,} images of "
        f"{code(last_part(train['location']))}. Settings: {code(_settings(record))}."
    )
    rows = {name: Row.from_record(row) for name, row in record["rows"].items()}
    yield _table(rows)
    figures = [figure for row in rows.values() for figure in row.figures.values()]
    if any(figure.interval is not None for figure in figures):
        yield "In parentheses: 95 % confidence interval, from the number of test images."
    if seeds := {figure.seeds for figure in figures if figure.deviation is not None}:
        count = " or ".join(map(str, sorted(seeds)))
        yield f"Behind ±: standard deviation over {count} seeds."
    if missed := sum(record["untrained_classes"].values()):
        yield f"{missed:,} test images are of classes without a training image; they are errors."
    if train["identity"] == test["identity"]:
        yield "The test images are the training images."
    elif record["repeated_images"]:
        yield f"{record['repeated_images']:,} test images are also training images."


def _settings(record: Mapping[str, Any]) -> str:
    said = {key: value for key, value in record["settings"].items() if key not in _SAID}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in said.items())


def _table(rows: Mapping[str, Row]) -> str:
    """A column for each metric that a row has, and for each setting chosen for a row alone."""
    metrics = [name for name in METRICS if any(name in row.figures for row in rows.values())]
    chosen = list(dict.fromkeys(name for row in rows.values() for name in row.chosen))
    head = ["features", *(METRICS[name][0] for name in metrics), *map(code, chosen)]
    cells = [
        [
            code(name),
            *(_cell(row.figures.get(metric), METRICS[metric][1]) for metric in metrics),
            *(code(row.chosen[c]) if c in row.chosen else "-" for c in chosen),
        ]
        for name, row in rows.items()
    ]
    return table(head, cells, numbers=len(metrics) + len(chosen))


def _cell(figure: Figure | None, decimals: int) -> str:
    if figure is None:
        return "-"
    text = f"{figure.value:,.{decimals}f}"
    if figure.deviation is not None:
        text += f" ± {figure.deviation:.{decimals}f}"
    if figure.interval is not None:
        low, high = figure.interval
        text += f" ({low:.{decimals}f} to {high:.{decimals}f})"
    return text
