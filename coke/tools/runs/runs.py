"""``coke runs``: the state of the runs in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.tools.console.tables import print_table
from coke.tools.runs.record import EpochRecord
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.run_lock import COMPLETE, FAILED, RUNNING, STOPPED, current_status

_DEPTH = 3  # levels of folders that are searched below the given one
UNREADABLE = "unreadable"
_COLOURS = {
    RUNNING: "cyan",
    STOPPED: "yellow",
    COMPLETE: "green",
    FAILED: "red",
    UNREADABLE: "red",
}


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run.

    Attributes:
        state: running, stopped, complete, failed, or unreadable.
        message: why it stopped, failed, or cannot be read.
        epoch: the last that has ended (the scan is 0); None if none has.
        epochs: of the whole run; None if the settings cannot be read.
        loss: of the last epoch.
        probe, linear_probe: epoch and top-1 of the best probe, by k-NN and by a linear classifier.
        changed: seconds since 1970.
    """

    path: Path
    state: str
    message: str
    epoch: int | None
    epochs: int | None
    loss: float | None
    probe: tuple[int, float] | None
    linear_probe: tuple[int, float] | None
    changed: float


def runs(folder: str | Path = "runs", *, console: Console | None = None) -> list[RunSummary]:
    """Shows the runs in a folder and below it, the one that changed last at the end.

    Raises:
        ValueError: there is no such folder, or no run in it.
    """
    console = console or Console()
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; name one that holds runs of `coke train`")
    found = sorted(map(summary, _run_folders(root)), key=lambda run: run.changed)
    if not found:
        raise ValueError(f"{root} holds no runs of `coke train`")
    table = Table()
    for name in ("run", "state"):
        table.add_column(name, overflow="fold")
    for name in ("epoch", "loss", "best k-NN\n(epoch)", "best linear\n(epoch)", "last change"):
        table.add_column(name, justify="right")
    for run in found:
        name = run.path.name if run.path == root else str(run.path.relative_to(root))
        table.add_row(
            escape(name),
            f"[{_COLOURS[run.state]}]{run.state}[/]",
            f"{'-' if run.epoch is None else run.epoch}/{run.epochs or '-'}",
            "-" if run.loss is None else f"{run.loss:.3f}",
            _shown(run.probe),
            _shown(run.linear_probe),
            _ago(time.time() - run.changed),
        )
    print_table(console, table)
    for run in found:
        if run.state in (STOPPED, FAILED, UNREADABLE) and run.message:
            console.print(f"{run.path}: {escape(run.message)}", highlight=False)
    return found


def summary(path: Path) -> RunSummary:
    """State, epochs, loss and best probe of a run folder."""
    run = RunFolder(path)
    status = current_status(path)
    last, epochs, knn, linear = None, None, None, None
    try:
        records = run.records()
        last = EpochRecord.of(records[-1]) if records else None
        knn, linear, epochs = run.best(), run.best("linear"), run.config().optimizer.epochs
    except (ValueError, TypeError, KeyError, OSError) as error:  # must not hide other runs
        state, message = UNREADABLE, str(error)
    else:
        if status is None:  # the file is missing
            ended = last is not None and last.epoch >= epochs
            state, message = (COMPLETE if ended else STOPPED), ""
        else:
            state, message = status.state, status.message
    times = [f.stat().st_mtime for f in (run.metrics, path / "config.toml") if f.exists()]
    return RunSummary(
        path=path,
        state=state,
        message=message,
        epoch=None if last is None else last.epoch,
        epochs=epochs,
        loss=None if last is None else last.loss,
        probe=knn,
        linear_probe=linear,
        changed=max([*times, *([] if status is None else [status.changed])]),
    )


def _run_folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    if RunFolder(root).exists:
        yield root
    elif depth > 0:
        for child in sorted(root.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                yield from _run_folders(child, depth - 1)


def _shown(best: tuple[int, float] | None) -> str:
    return "-" if best is None else f"{best[1]:.2f} ({best[0]})"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
