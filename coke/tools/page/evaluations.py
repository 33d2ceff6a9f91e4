"""The section of evaluations: a run's ``eval.json``, each result beside its baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coke.tools.evaluation.results import RESULTS
from coke.tools.page.content import Section, Table

OWN = "CoKe"  # the row of the run itself
_HEADINGS = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "accuracy": "accuracy %",
    "purity": "purity %",
    "nmi": "NMI",
    "ari": "ARI",
}
_COUNTS = ("clusters", "smallest", "largest")
#: Ends of names that say more about the metric before them.
_ABOUT = ("_interval", "_deviation", "_seeds")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A record of ``eval.json``.

    Attributes:
        rows: metrics of each representation, by its name.
        tested_on: the test data in words.
    """

    method: str
    epoch: int | None
    tested_on: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def title(self) -> str:
        """Method and epoch."""
        return self.method if self.epoch is None else f"{self.method}, epoch {self.epoch}"

    def best_baseline(self) -> tuple[str, float] | None:
        """Name and top-1 accuracy of the best of the other rows."""
        others = [
            (name, top1)
            for name, row in self.rows.items()
            if name != OWN and (top1 := _number(row.get("top1"))) is not None
        ]
        return max(others, key=lambda other: other[1], default=None)

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy of the run in percent."""
        return _number(self.rows.get(OWN, {}).get("top1"))


def read_evaluations(run: Path) -> list[Evaluation]:
    """The records of a run's ``eval.json``, oldest first; none without the file.

    Raises:
        ValueError: it cannot be read.
    """
    path = run / RESULTS
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [_evaluation(record) for record in found.values()]
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away") from error


def evaluations_section(found: list[Evaluation]) -> Section:
    """A table with a row for each representation of each evaluation, the newest first."""
    if not found:
        line = "Nothing was evaluated yet: `coke eval` adds its results to the run."
        return Section(title="Evaluations", lines=[line])
    every = [row for evaluation in found for row in evaluation.rows.values()]
    metrics = list(dict.fromkeys(name for row in every for name in _metrics(row)))
    rows = [cells for evaluation in reversed(found) for cells in _rows(evaluation, metrics)]
    headings = [_HEADINGS.get(name, name) for name in metrics]
    table = Table(header=("evaluation", "test images", "features", *headings), rows=rows, texts=3)
    note = (
        "In parentheses: the 95 % confidence interval, or the standard deviation over seeds, "
        "where the evaluation has one."
    )
    says_more = any("(" in cell for row in rows for cell in row[3:])
    return Section(title="Evaluations", note=note if says_more else "", tables=[table])


def _evaluation(record: Mapping[str, Any]) -> Evaluation:
    data = record["data"]["test"]
    where = str(data["location"])
    rows = {str(name): row for name, row in record["rows"].items() if isinstance(row, Mapping)}
    return Evaluation(
        method=str(record["method"]),
        epoch=record.get("epoch"),
        tested_on=f"{int(data['images']):,} of {where}",
        rows=rows,
    )


def _rows(evaluation: Evaluation, metrics: list[str]) -> Iterator[tuple[str, ...]]:
    title, data = evaluation.title, evaluation.tested_on
    for name, row in evaluation.rows.items():
        yield (title, data, name, *(_cell(row, metric) for metric in metrics))
        title = data = ""  # once for all rows of an evaluation


def _metrics(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if _number(value) is not None and not name.endswith(_ABOUT):
            yield name


def _cell(row: Mapping[str, Any], metric: str) -> str:
    value = _number(row.get(metric))
    if value is None:
        return ""
    text = f"{value:,.0f}" if metric in _COUNTS else f"{value:.3f}"
    if metric in _HEADINGS and "%" in _HEADINGS[metric]:
        text = f"{value:.2f}"
    interval, deviation = row.get(metric + "_interval"), row.get(metric + "_deviation")
    if interval is not None:
        return f"{text} ({interval[0]:.2f} to {interval[1]:.2f})"
    return f"{text} (± {deviation:.2f})" if deviation is not None else text


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
