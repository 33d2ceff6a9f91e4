"""`coke inspect`: tables of what a data set holds, and a contact sheet of augmented views.

The tables come from the index alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coke.config.view_recipe import ViewRecipe
from coke.files.durable import draft_of
from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.console.tables import print_table
from coke.tools.datasets.contact_sheet import contact_sheet
from coke.tools.datasets.parts import find_parts

#: Lower ends of the bins of the histogram of shorter sides, in pixels.
RESOLUTION_BINS = (1, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_BAR = 30  # characters of the longest bar
_CLASSES_SHOWN = 5  # largest classes that are listed, and as many smallest ones
_SHEET_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True, kw_only=True)
class MinMedianMax:
    """Smallest, median and largest of some numbers; all 0 where there are no numbers."""

    smallest: int
    median: int
    largest: int

    @classmethod
    def of(cls, values: NDArray[np.generic]) -> MinMedianMax:
        if len(values) == 0:
            return cls(smallest=0, median=0, largest=0)
        median = int(np.partition(values, len(values) // 2)[len(values) // 2])
        return cls(smallest=int(values.min()), median=median, largest=int(values.max()))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a data set holds.

    Attributes:
        images: number of ids that have an image.
        tombstones: number of ids whose image is gone.
        left_out: number of images that a subset does not have.
        image_bytes: bytes of all stored images together.
        length: bytes of an image.
        height, width: pixels of an image.
        raw: number of images stored as raw pixels; all others are JPEGs.
        unlabelled: number of images without a class.
        class_counts: number of images of each class (C,).
        resolutions: number of images in each bin of :data:`RESOLUTION_BINS`.
    """

    folder: Path
    images: int
    tombstones: int
    left_out: int
    image_bytes: int
    length: MinMedianMax
    height: MinMedianMax
    width: MinMedianMax
    raw: int
    unlabelled: int
    class_counts: NDArray[np.int64]
    resolutions: NDArray[np.int64]


def inspect(
    folder: str | Path,
    *,
    ids: Any = None,
    cache_dir: str | Path | None = None,
    console: Console | None = None,
) -> list[Summary]:
    """Prints tables of a data set, or of every data set in a folder of splits.

    Only the index is read, so that millions of images take seconds.

    Args:
        folder: what `coke ingest` made, or its URL.
        ids: these images alone: (M,) ids of the data set, of ``train`` in a folder of splits; or
            the path of a ``.npy`` file of them.
        cache_dir: where the index of a remote data set is kept; the default cache when None.
        console: where the tables go.

    Returns:
        One summary per data set.

    Raises:
        ValueError: there is no data set in ``folder``, or its index is damaged.
    """
    console = console or Console()
    found = []
    parts = find_parts(folder) if ids is None else []
    for part in parts or [find_split(folder, ("train",))]:
        index = ImageIndex(part, cache_dir=cache_dir)
        if ids is not None:
            index = index.subset(ids)
        summary = summarise(index)
        found.append(summary)
        for table in _tables(index, summary):
            print_table(console, table)
    return found


def summarise(index: ImageIndex) -> Summary:
    """The numbers behind the tables."""
    rows = index.rows
    live = rows if index.live_ids is None else rows[index.live_ids]
    length = live["length"]
    tombstones = len(rows) - len(live)
    if index.subset_ids is not None:
        tombstones = int((rows["length"] == 0).sum())
    labels = live["label"]
    shorter = np.minimum(live["height"], live["width"])
    bins = np.searchsorted(np.array(RESOLUTION_BINS), shorter, side="right") - 1
    return Summary(
        folder=index.folder,
        images=len(live),
        tombstones=tombstones,
        left_out=len(rows) - len(live) - tombstones,
        image_bytes=int(length.sum(dtype=np.int64)),
        length=MinMedianMax.of(length),
        height=MinMedianMax.of(live["height"]),
        width=MinMedianMax.of(live["width"]),
        raw=int((live["encoding"] == RAW_RGB).sum()),
        unlabelled=int((labels < 0).sum()),
        class_counts=np.bincount(labels[labels >= 0], minlength=index.n_classes),
        resolutions=np.bincount(bins.clip(0), minlength=len(RESOLUTION_BINS)),
    )


def save_sheet(
    data: str | Path,
    recipes: Sequence[ViewRecipe],
    out: str | Path,
    *,
    ids: Any = None,
    images: int = 8,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    backend: str = "auto",
    cache_dir: str | Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes a contact sheet of a data set's views; see :func:`contact_sheet`.

    Args:
        data: a data set, or a folder of splits (then ``train``, or the first one); or its URL.
        out: the image file; its suffix decides the format.
        ids: these images alone, as in :func:`inspect`.
        overwrite: replace ``out`` where it exists.

    Returns:
        The file.

    Raises:
        ValueError: an argument is out of range, ``out`` exists, or it cannot be written there.
    """
    out = Path(out)
    if out.suffix.lower() not in _SHEET_FORMATS:
        raise ValueError(f"--out is {out}; name a .png, .jpg or .webp file")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give --overwrite to replace it, or another --out")
    if not out.parent.is_dir():
        raise ValueError(f"folder {out.parent} of --out {out} does not exist; make it first")
    if not os.access(out.parent, os.W_OK) or out.is_dir():
        raise ValueError(f"--out {out} cannot be written; choose another place")
    parts = find_parts(data) or [find_split(data, ("train",))]
    trains = [part for part in parts if str(part).rpartition("/")[2] == "train"]
    part = ImageIndex((trains or parts)[0], cache_dir=cache_dir)
    if ids is not None:
        part = part.subset(ids)
    sheet = contact_sheet(
        part,
        recipes,
        images=images,
        seed=seed,
        epoch=epoch,
        epochs=epochs,
        backend=backend,
    )
    with draft_of(out, exclusive=not overwrite) as draft:
        sheet.save(draft, format=_SHEET_FORMATS[out.suffix.lower()])
    (console or Console(soft_wrap=True)).print(
        f"{out}: {sheet.width} x {sheet.height} pixels, images of {part.location}",
        markup=False,
        highlight=False,
    )
    return out


def _tables(index: ImageIndex, summary: Summary) -> list[Table]:
    tables = [_overview(index, summary)]
    if summary.class_counts.any():
        tables.append(_classes(index, summary))
    if summary.images:
        tables.append(_resolutions(summary))
    return tables


def _overview(index: ImageIndex, summary: Summary) -> Table:
    name = str(summary.folder) if index.remote is None else index.location
    table = Table(title=Text(name), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    containers = index.manifest.containers
    sizes = MinMedianMax.of(np.array([container.size for container in containers], dtype=np.int64))
    jpegs = summary.images - summary.raw
    encodings = [f"{n:,} {name}" for n, name in ((jpegs, "JPEG"), (summary.raw, "raw RGB")) if n]
    tombstones = f"{summary.tombstones:,}" + (
        f" (ids are 0..{len(index) - 1:,})" if summary.tombstones else ""
    )
    images = f"{summary.images:,}"
    if index.subset_ids is not None:
        images += f", chosen by id; {summary.left_out:,} others"
    for name, value in (
        ("images", images),
        ("tombstones", tombstones),
        ("rejected at ingest", f"{index.manifest.rejected:,}"),
        ("bytes of images", _bytes(summary.image_bytes)),
        ("bytes per image", _range_text(summary.length, _bytes)),
        ("height", _range_text(summary.height, "{:,}".format)),
        ("width", _range_text(summary.width, "{:,}".format)),
        ("encodings", ", ".join(encodings) or "-"),
        ("classes", f"{index.n_classes:,}"),
        ("without a class", f"{summary.unlabelled:,}"),
        ("containers", f"{len(containers):,} ({index.manifest.storage})"),
        ("bytes per container", _range_text(sizes, _bytes)),
    ):
        table.add_row(name, value)
    return table


def _classes(index: ImageIndex, summary: Summary) -> Table:
    counts = summary.class_counts
    order = np.argsort(-counts, kind="stable")
    table = Table(title="images per class: largest and smallest", title_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("images", justify="right")
    table.add_column("", no_wrap=True)
    shown = order.tolist()
    if len(order) > 2 * _CLASSES_SHOWN:
        shown = [*order[:_CLASSES_SHOWN].tolist(), None, *order[-_CLASSES_SHOWN:].tolist()]
    for label in shown:
        if label is None:
            table.add_row(f"... {len(order) - 2 * _CLASSES_SHOWN:,} more", "", "")
        else:
            count = int(counts[label])
            name = Text(index.manifest.classes[label])
            table.add_row(name, f"{count:,}", _bar(count, int(counts.max())))
    return table


def _resolutions(summary: Summary) -> Table:
    counts = summary.resolutions
    table = Table(title="shorter side, in pixels", title_justify="left")
    table.add_column("from", justify="right")
    table.add_column("to", justify="right")
    table.add_column("images", justify="right")
    table.add_column("", no_wrap=True)
    filled = np.flatnonzero(counts)
    for b in range(int(filled[0]), int(filled[-1]) + 1):
        last = b + 1 == len(RESOLUTION_BINS)
        to = "" if last else f"{RESOLUTION_BINS[b + 1] - 1:,}"
        bar = _bar(int(counts[b]), int(counts.max()))
        table.add_row(f"{RESOLUTION_BINS[b]:,}", to, f"{int(counts[b]):,}", bar)
    return table


def _bar(count: int, longest: int) -> str:
    return "█" * max(round(_BAR * count / longest), 1) if count else ""


def _range_text(numbers: MinMedianMax, shown: Callable[[int], str]) -> str:
    if numbers.smallest == numbers.largest:
        return f"{shown(numbers.median)} (all)"
    return (
        f"{shown(numbers.smallest)} to {shown(numbers.largest)}, half of them at most "
        f"{shown(numbers.median)}"
    )


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
