"""The table an evaluation prints, and ``eval.json``, which keeps it with its hyper-parameters."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

#: What frozen features CoKe is read beside.
BASELINES = ("random initialisation", "raw pixels")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy on the test images in percent."""

    top1: float
    top5: float


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """One evaluation of one run; ``rows`` are keyed by representation."""

    method: str
    run: str
    epoch: int
    train_images: int
    test_images: int
    settings: dict[str, Any]
    rows: dict[str, Accuracy]

    def beats_baselines(self) -> bool:
        """Whether CoKe's top-1 is above every baseline that was measured."""
        best = max((self.rows[n].top1 for n in BASELINES if n in self.rows), default=0.0)
        return self.rows["CoKe"].top1 > best


def show_and_save(report: EvalReport, run: str | Path, console: Console) -> None:
    """Prints the table and merges the report into ``eval.json`` of the run, by method and epoch."""
    table = Table(title=f"{report.method} on {report.test_images:,} test images")
    table.add_column("features")
    table.add_column("top-1 %", justify="right")
    table.add_column("top-5 %", justify="right")
    for name, accuracy in report.rows.items():
        label = f"CoKe, epoch {report.epoch}" if name == "CoKe" else name
        table.add_row(label, f"{accuracy.top1:.2f}", f"{accuracy.top5:.2f}")
    console.print(table)
    if not report.beats_baselines():
        console.print(
            "[bold yellow]warning:[/] CoKe's features are not above every baseline here; train "
            "longer, or look at the run's collapse warnings",
            highlight=False,
        )
    path = Path(run) / "eval.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[f"{report.method}, epoch {report.epoch}"] = asdict(report)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    console.print(f"written to {path}", highlight=False)
