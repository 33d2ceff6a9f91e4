"""What an evaluation came to, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.tools.console.tables import print_table
from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.labelled_data import DataRecords
from coke.tools.evaluation.representations import Subject

#: Representations that the trained one is compared with.
BASELINES = ("random initialisation", "raw pixels")


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
        rows: accuracy by representation.
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
    rows: dict[str, Accuracy]

    @classmethod
    def of(
        cls,
        method: str,
        run: str | Path,
        subject: Subject,
        settings: dict[str, Any],
        rows: dict[str, Accuracy],
    ) -> Self:
        """The report on a subject."""
        splits, view = subject.splits, subject.config.data.view
        return cls(
            method=method,
            run=str(run),
            epoch=subject.epoch,
            weights_sha256=subject.weights_sha256,
            data=splits.records,
            train_images=splits.train.n_live,
            test_images=splits.test.n_live,
            untrained_classes=splits.untrained,
            repeated_images=splits.repeated,
            settings={
                **settings,
                "size": view.evaluation().size,
                "center_fraction": view.center_fraction,
                "baselines": len(rows) > 1,
            },
            rows=rows,
        )

    def beats_baselines(self) -> bool:
        """Whether CoKe's top-1 is above every baseline that was measured."""
        best = max((self.rows[n].top1 for n in BASELINES if n in self.rows), default=0.0)
        return self.rows["CoKe"].top1 > best


def show(report: EvalReport, console: Console) -> None:
    """Prints the table, and below it what a reader of the figures must know."""
    for role, data in (("train", report.data.train), ("test", report.data.test)):
        console.print(
            f"{role}: {data.images:,} images of {escape(data.location)}"
            + (f" ({data.unlabelled:,} without a label left out)" if data.unlabelled else ""),
            highlight=False,
            soft_wrap=True,
        )
    table = Table(title=report.method)
    table.add_column("features")
    table.add_column("top-1 %", justify="right")
    with_top5 = any(row.top5 is not None for row in report.rows.values())
    if with_top5:
        table.add_column("top-5 %", justify="right")
    for name, accuracy in report.rows.items():
        label = f"CoKe, epoch {report.epoch}" if name == "CoKe" else name
        top5 = "-" if accuracy.top5 is None else f"{accuracy.top5:.2f}"
        table.add_row(label, f"{accuracy.top1:.2f}", *([top5] if with_top5 else []))
    print_table(console, table)
    for line in _warnings(report):
        console.print(f"[bold yellow]warning:[/] {escape(line)}", highlight=False)


def _warnings(report: EvalReport) -> list[str]:
    found = []
    if report.untrained_classes:
        names = [f"{name!r} ({n:,})" for name, n in report.untrained_classes.items()]
        more = f" and {len(names) - 5} more classes" if len(names) > 5 else ""
        found.append(
            f"{sum(report.untrained_classes.values()):,} of {report.test_images:,} test images are "
            f"of classes without a training image: {', '.join(names[:5])}{more}. They count as "
            "errors"
        )
    if report.data.train.identity == report.data.test.identity:
        found.append("the test images are the training images: each finds itself")
    elif report.repeated_images:
        found.append(
            f"{report.repeated_images:,} of {report.test_images:,} test images are also training "
            "images: each of them finds itself"
        )
    if not report.beats_baselines():
        found.append(
            "CoKe's features are not above every baseline here; train longer, or look at the run's "
            "collapse warnings"
        )
    return found
