"""A small result of an evaluation."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.figures import accuracy_row
from coke.tools.evaluation.labelled_data import DataRecord, DataRecords
from coke.tools.evaluation.report import EvalReport, show

DATA = DataRecord(
    location="/d/val", split="val", identity="11", labels_sha256="22", images=10, unlabelled=0
)
REPORT = EvalReport(
    method="knn",
    run="r",
    epoch=1,
    weights_sha256="33",
    data=DataRecords(train=replace(DATA, location="/d/train", split="train"), test=DATA),
    train_images=10,
    test_images=10,
    untrained_classes={},
    repeated_images=0,
    settings={"k": 20},
    rows={"CoKe": accuracy_row(Accuracy(top1=50.0, top5=90.0), 10)},
)


def shown(report: EvalReport) -> str:
    """What a user sees of it."""
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
