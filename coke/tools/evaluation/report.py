"""What an evaluation came to, and the table of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.tools.console.tables import print_table
from coke.tools.evaluation.contestants import BASELINES as BASELINES
from coke.tools.evaluation.contestants import TRAINED
from coke.tools.evaluation.figures import METRICS, Figure, Row
from coke.tools.evaluation.labelled_data import DataRecords
from coke.tools.evaluation.subject import Subject

#: Test images from which on the table leaves intervals out: they are within one point then.
MANY_TEST_IMAGES = 10_000
#: Setting of an evaluation that needs no test images.
OF_TRAIN = {"images": "train"}


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """One evaluation of one run.

    Attributes:
        weights_sha256: hash over the weights that were evaluated.
        data: the data sets.
        train_images, test_images: how many images of them were used.
        untrained_classes: test images of each class that no training image has; each is an error.
        repeated_images: test images whose stored bytes are those of a training image.
        settings: all that decides the result besides weights and data.
        rows: figures by representation.
    """

    method: str
    run: str
    epoch: int
    weights_sha256: str
    data: DataRecords
    train_images: int
    test_images: int
    untrained_classes: dict[str, int]
    repeated_images: int
    settings: dict[str, Any]
    rows: dict[str, Row]

    @classmethod
    def of(
        cls,
        method: str,
        run: str | Path,
        subject: Subject,
        settings: dict[str, Any],
        rows: dict[str, Row],
    ) -> Self:
        """The report on a subject.

        Args:
            settings: of the evaluation. If they hold :data:`OF_TRAIN`, the figures are of the
                training images, and the report names them alone.
        """
        alone = settings.items() >= OF_TRAIN.items()
        splits, view = subject.splits, subject.config.data.view
        if alone:
            splits = splits.train_alone()
        against = {rival.name: rival.weights_sha256 for rival in subject.rivals}
        return cls(
            method=method,
            run=str(run),
            epoch=subject.epoch,
            weights_sha256=subject.weights_sha256,
            data=splits.records,
            train_images=splits.train.n_live,
            test_images=splits.test.n_live,
            untrained_classes=splits.untrained,
            repeated_images=0 if alone else splits.repeated,
            settings={
                **settings,
                "size": view.evaluation().size,
                "center_fraction": view.center_fraction,
                "baselines": subject.baselines,
                **({"against": against} if against else {}),
                **({"ids_sha256": ids} if (ids := splits.train.subset_sha256) else {}),
            },
            rows=rows,
        )

    @property
    def tests(self) -> bool:
        """Whether something was learned from one data set and tested on another."""
        return not self.settings.items() >= OF_TRAIN.items()

    def identity(self) -> dict[str, Any]:
        """All that two equal evaluations share: everything but the run's place and the outcome."""
        found = asdict(replace(self, rows={}))
        for other in ("run", "rows", "untrained_classes", "repeated_images"):
            del found[other]
        for data in found["data"].values():
            del data["split"]  # only says how the place was named
        return found

    def record(self) -> dict[str, Any]:
        """The report in ``eval.json``."""
        rows = {name: row.record() for name, row in self.rows.items()}
        return {**asdict(replace(self, rows={})), "rows": rows}

    def beats_baselines(self) -> bool:
        """Whether CoKe's main figure is above that of every baseline that was measured."""
        metric = self.main_metric
        measured = [self.rows[name].figures for name in BASELINES if name in self.rows]
        best = max((figures[metric].value for figures in measured), default=0.0)
        return self.rows[TRAINED].figures[metric].value > best

    @property
    def main_metric(self) -> str:
        """The metric that representations are compared by."""
        return "top1" if "top1" in self.rows[TRAINED].figures else "accuracy"


def show(report: EvalReport, console: Console, *, with_data: bool = True) -> None:
    """Prints the table, and what a reader of the figures must know.

    Args:
        with_data: say which images were used, and what is wrong with them; see :func:`show_data`.
    """
    if with_data:
        show_data(report, console)
    print_table(console, _table(report))
    for line in _notes(report):
        console.print(line, highlight=False)
    warnings = _data_warnings(report) if with_data else []
    if not report.beats_baselines():
        warnings.append(
            "CoKe's features are not above every baseline here; train longer, or look at the run's "
            "collapse warnings"
        )
    _warn(warnings, console)


def show_data(report: EvalReport, console: Console, *, with_warnings: bool = False) -> None:
    """Prints which images were used and, with ``with_warnings``, what is wrong with them."""
    chosen = report.settings.get("ids_sha256")
    roles = {"train": report.data.train, "test": report.data.test}
    for role, data in roles.items() if report.tests else [("images", report.data.train)]:
        console.print(
            f"{role}: {data.images:,} images of {escape(data.location)}"
            + (f", chosen by id (hash {chosen[:12]})" if chosen and role != "test" else "")
            + (f" ({data.unlabelled:,} without a label left out)" if data.unlabelled else ""),
            highlight=False,
            soft_wrap=True,
        )
    if with_warnings:
        _warn(_data_warnings(report), console)


def _warn(lines: list[str], console: Console) -> None:
    for line in lines:
        console.print(f"[bold yellow]warning:[/] {escape(line)}", highlight=False)


def _table(report: EvalReport) -> Table:
    """A column for each metric that a row has, and for each setting chosen for a row."""
    rows = report.rows.values()
    metrics = [name for name in METRICS if any(name in row.figures for row in rows)]
    chosen = list(dict.fromkeys(name for row in rows for name in row.chosen))
    small = report.test_images < MANY_TEST_IMAGES
    bounded = {m for m in metrics if small and any(_interval(row, m) for row in rows)}
    table = Table(title=report.method)
    table.add_column("features")
    for metric in metrics:
        table.add_column(METRICS[metric][0], justify="right", no_wrap=True)
        if metric in bounded:
            table.add_column("95 % interval", justify="right")
    for name in chosen:
        table.add_column(name, justify="right")
    for name, row in report.rows.items():
        cells = [f"CoKe, epoch {report.epoch}" if name == TRAINED else escape(name)]
        for metric in metrics:
            cells.append(cell(row.figures.get(metric), METRICS[metric][1]))
            if metric in bounded:
                cells.append(_interval(row, metric) or "-")
        cells += [str(row.chosen.get(setting, "-")) for setting in chosen]
        table.add_row(*cells)
    return table


def cell(figure: Figure | None, decimals: int) -> str:
    """A figure with its standard deviation over seeds; a dash where there is none."""
    if figure is None:
        return "-"
    after = "" if figure.deviation is None else f" ± {figure.deviation:.{decimals}f}"
    return f"{figure.value:,.{decimals}f}{after}"


def _interval(row: Row, metric: str) -> str | None:
    figure = row.figures.get(metric)
    if figure is None or figure.interval is None:
        return None
    return f"{figure.interval[0]:.1f} to {figure.interval[1]:.1f}"


def _notes(report: EvalReport) -> list[str]:
    """What a reader must know to compare rows of clusters."""
    figures = [row.figures for row in report.rows.values() if "clusters" in row.figures]
    found = []
    if any("accuracy" not in row for row in figures):
        found.append(
            "accuracy matches one cluster with one class, so it needs as many clusters as classes "
            f"({report.settings['classes']:,})"
        )
    if len({row["clusters"].value for row in figures}) > 1:
        found.append(
            "purity and NMI grow with the number of clusters: compare them where it is equal"
        )
    return found


def _data_warnings(report: EvalReport) -> list[str]:
    found = []
    if report.untrained_classes:
        names = [f"{name!r} ({n:,})" for name, n in report.untrained_classes.items()]
        more = f" and {len(names) - 5} more classes" if len(names) > 5 else ""
        found.append(
            f"{sum(report.untrained_classes.values()):,} of {report.test_images:,} test images are "
            f"of classes without a training image: {', '.join(names[:5])}{more}. They count as "
            "errors"
        )
    if not report.tests:
        pass
    elif report.data.train.identity == report.data.test.identity:
        found.append("the test images are the training images: each finds itself")
    elif report.repeated_images:
        found.append(
            f"{report.repeated_images:,} of {report.test_images:,} test images are also training "
            "images: each of them finds itself"
        )
    return found
