"""The report of an ingest: progress, the list of rejected files, the table at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

#: Rows of the summary that are left out where they would hold zeros only.
_MAY_BE_LEFT_OUT = ("old ids", "tombstones", "duplicates", "turned", "label files")


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The counts of one split (``name`` is empty when there is only one).

    ``images`` are those stored, ``kept`` of them under an id of the base, ``tombstones`` ids
    without an image, ``duplicates`` images whose bytes another one has, too: stored with
    ``dedupe="report"``, left out with ``"drop"``; ``turned`` images were stored upright, as their
    EXIF orientation says. What is stored as no image is in
    ``rejected.tsv``: ``rejected`` images, ``label_files``, whose contents became labels, and
    ``others``.
    """

    name: str
    images: int
    classes: int
    rejected: int
    others: int
    containers: int
    bytes: int
    kept: int = 0
    tombstones: int = 0
    duplicates: int = 0
    turned: int = 0
    label_files: int = 0

    @property
    def found(self) -> int:
        """Files in the source, tars and tables counted by their contents."""
        return self.images + self.rejected + self.others + self.label_files


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """The counts of an ingest.

    ``beside`` counts files that are in no split. ``resumed_images`` were checked,
    ``resumed_containers`` written by an interrupted run before.
    """

    out: Path | str
    splits: tuple[SplitReport, ...]
    seconds: float
    beside: int = 0
    resumed_images: int = 0
    resumed_containers: int = 0

    @property
    def found(self) -> int:
        """Files in the source, tars and tables counted by their contents."""
        return self.beside + sum(split.found for split in self.splits)


class PassProgress:
    """One line of progress: what is done, how fast, and what an earlier run had done."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description.strip(), total=total, images=0, bytes=0, old=0)
        self._images = self._bytes = self._old = 0

    def advance(self, images: int, size: int, *, resumed: bool) -> None:
        """Counts images, of ``size`` bytes together."""
        if resumed:
            self._old += images
        else:
            self._images += images
            self._bytes += size
        self._progress.update(
            self._task, advance=images, images=self._images, bytes=self._bytes, old=self._old
        )


class _Rate(ProgressColumn):
    """Images and megabytes per second of this run; resumed work does not count."""

    def render(self, task: Task) -> Text:
        seconds = max(task.finished_time or task.elapsed or 0.0, 1e-9)
        rate = f"{task.fields['images'] / seconds:,.0f} images/s"
        rate += f" {task.fields['bytes'] / seconds / 1e6:,.0f} MB/s"
        resumed = f", {task.fields['old']:,} resumed" if task.fields["old"] else ""
        return Text(rate + resumed)


def progress_display(console: Console) -> Progress:
    """A display for :class:`PassProgress` lines."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
    )


def rejected_table(rejected: Iterable[tuple[str, str]]) -> bytes:
    """``rejected.tsv``: keys and why they were left out."""
    lines = ["key\treason", *(f"{one_line(key)}\t{one_line(why)}" for key, why in rejected)]
    return "".join(f"{line}\n" for line in lines).encode()


def one_line(text: str) -> str:
    """Text as one field of one line: names may hold line breaks, tabs and stray bytes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def summary(report: IngestReport) -> Table:
    """The table that an ingest ends with: a column per split; a row of zeros may be left out.

    ``found`` is the sum of images, rejected images, label files and other files.
    """
    splits = report.splits
    rows: dict[str, list[int]] = {
        "found": [split.found for split in splits],
        "images": [split.images for split in splits],
        "old ids": [split.kept for split in splits],
        "tombstones": [split.tombstones for split in splits],
        "duplicates": [split.duplicates for split in splits],
        "turned": [split.turned for split in splits],
        "rejected": [split.rejected for split in splits],
        "label files": [split.label_files for split in splits],
        "other files": [split.others for split in splits],
        "classes": [split.classes for split in splits],
        "containers": [split.containers for split in splits],
    }
    table = Table(title=f"{report.out}")
    table.add_column("split", overflow="fold")
    for name in (*(split.name or "-" for split in splits), *(["none"] if report.beside else [])):
        table.add_column(name, justify="right", overflow="fold")  # no digit is cut off
    beside = {"found": f"{report.beside:,}", "other files": f"{report.beside:,}"}
    for name, counts in rows.items():
        if any(counts) or name not in _MAY_BE_LEFT_OUT:
            outside = [beside.get(name, "")] if report.beside else []
            table.add_row(name, *(f"{count:,}" for count in counts), *outside)
    table.add_row("size", *(f"{split.bytes / 1e6:,.1f} MB" for split in splits))
    return table


def pace(report: IngestReport) -> str:
    """One line: duration, rate, and the work that an interrupted run had done before."""
    images = sum(split.images for split in report.splits)
    text = f"{report.seconds:.1f} s, {images / max(report.seconds, 1e-9):,.0f} images/s"
    if report.resumed_images or report.resumed_containers:
        text += (
            f"; {report.resumed_images:,} verdicts and {report.resumed_containers:,} containers "
            "were there from an interrupted run"
        )
    return text
