"""``coke ingest DATA OUT --ids``: chosen images of a data set as a data set of their own.

Ids and keys stay. All others become tombstones, so OUT is what ``--base DATA`` makes of a source
that has only the chosen images. Stored bytes are copied as they are; nothing is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from coke.files.publish import published
from coke.pipeline.containers.formats import CONTAINER_WRITERS
from coke.pipeline.containers.plan import Candidate, ContainerPlan, WrittenContainer
from coke.pipeline.dataset.index import INDEX_DTYPE, RAW_RGB, ImageIndex
from coke.pipeline.dataset.open import is_dataset
from coke.pipeline.dataset.write_index import write_index
from coke.pipeline.images.jpeg import Verdict
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.remote.remote import location
from coke.pipeline.sources import Source, is_url
from coke.tools.datasets.dataset_kind import DATASET, REJECTED
from coke.tools.datasets.ingest_report import rejected_table


@dataclass(frozen=True, kw_only=True)
class SubsetReport:
    """What was copied: images, ids that are tombstones now, containers and their bytes."""

    out: Path
    images: int
    tombstones: int
    containers: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class _Stored:
    """The stored images of these ids."""

    reader: RecordReader
    ids: Sequence[int]

    def read(self, i: int) -> bytes:
        return self.reader.read_checked(np.array([self.ids[i]]))[0].tobytes()

    def describe(self, i: int) -> str:
        return self.reader.index.describe(self.ids[i])

    def path(self, i: int) -> str:
        return self.reader.index.location

    def take(self, positions: Sequence[int]) -> _Stored:
        return _Stored(self.reader, [self.ids[i] for i in positions])


def ingest_subset(
    data: str | Path,
    out: str | Path,
    ids: Any,
    *,
    shard_size: int = 2000,
    format: str = "wds",
    overwrite: bool = False,
    console: Console | None = None,
) -> SubsetReport:
    """Copies chosen images of a data set into a new one, under the ids that they have.

    Args:
        data: a data set made by ``coke ingest``; of a folder of splits, name one.
        out: the new folder; it appears when it is complete.
        ids: (M,) ids, or the path of a ``.npy`` file of them.
        shard_size: images per container; 0 for all in one.
        format: of the containers: ``"wds"`` or ``"ffcv"``.
        overwrite: replace the data set that is at ``out``.

    Raises:
        ValueError: ``data`` is no data set, or holds raw pixels; ids that do not fit it; an
            argument is out of range; ``out`` is taken, or cannot be written.
    """
    console = console or Console()
    if shard_size < 0:
        raise ValueError(
            f"shard_size is {shard_size}; give a number of images, or 0 for one container"
        )
    if format not in CONTAINER_WRITERS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(CONTAINER_WRITERS)}")
    if is_url(str(out)):
        raise ValueError(f"OUT is {out}; with --ids give a local folder, and copy it there")
    place, out = location(data), Path(out)
    if isinstance(place, Path) and not is_dataset(place):
        raise ValueError(
            f"{place} is no data set of `coke ingest`, whose ids --ids chooses from; of a folder "
            f"of splits give one, such as {place / 'train'}"
        )
    index = ImageIndex(data).subset(ids)
    chosen = index.live_ids
    assert chosen is not None
    if len(raw := chosen[index.rows["encoding"][chosen] == RAW_RGB]):
        raise ValueError(
            f"{index.describe(int(raw[0]))} is stored as raw pixels, which are not copied; train "
            "with --ids on the data set itself"
        )
    if isinstance(place, Path) and place.resolve() == out.resolve():
        raise ValueError(f"OUT is {out}, the data set itself; choose another folder")
    started = time.monotonic()
    with published(out, overwrite=overwrite, kind=DATASET) as folder:
        written = _write(index, folder, shard_size or len(chosen), format, console)
        _write_side_files(index, folder, written, shard_size, format)
    size = sum(piece.container.size for piece in written)
    report = SubsetReport(
        out=out,
        images=len(chosen),
        tombstones=len(index) - len(chosen),
        containers=len(written),
        bytes=size,
        seconds=time.monotonic() - started,
    )
    console.print(
        f"{out}: {report.images:,} images of {index.location}, {report.tombstones:,} tombstones, "
        f"{report.containers:,} containers of {size / 1e6:,.1f} MB in {report.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return report


def _write(
    index: ImageIndex, folder: Path, size: int, format: str, console: Console
) -> list[WrittenContainer]:
    """Containers of ``size`` images each; together they answer for all ids."""
    chosen, reader = index.live_ids, RecordReader(index)
    assert chosen is not None
    written: list[WrittenContainer] = []
    with Progress(console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task(f"copying to {folder.name}", total=len(chosen))
        for number, first in enumerate(range(0, len(chosen), size)):
            ids = chosen[first : first + size].tolist()
            last = first + len(ids) == len(chosen)
            rows = index.rows[ids]
            plan = ContainerPlan(
                folder=folder,
                number=number,
                start=written[-1].container.stop if written else 0,
                stop=len(index) if last else ids[-1] + 1,
                ids=tuple(ids),
                records=Source(
                    keys=tuple(index.keys[i] for i in ids),
                    labels=tuple(rows["label"].tolist()),
                    classes=tuple(index.manifest.classes),
                    images=_Stored(reader, ids),
                    origin=index.location,
                ),
                candidates=tuple(
                    Candidate(verdict=Verdict(height=h, width=w, as_is=True), crc32=crc)
                    for h, w, crc in zip(
                        rows["height"].tolist(),
                        rows["width"].tolist(),
                        index.crc32[ids].tolist(),
                        strict=True,
                    )
                ),
                settings=StorageSettings(),
            )
            written.append(CONTAINER_WRITERS[format](plan))
            progress.advance(task, len(ids))
    return written


def _write_side_files(
    index: ImageIndex,
    folder: Path,
    written: list[WrittenContainer],
    shard_size: int,
    format: str,
) -> None:
    rows, crc32 = np.zeros(len(index), dtype=INDEX_DTYPE), np.zeros(len(index), dtype=np.uint32)
    rows["label"] = -1  # of tombstones, as in any ingest
    containers = [piece.container for piece in written]
    for number, container in enumerate(containers):
        rows["container"][container.start : container.stop] = number
    rows[index.live_ids] = np.concatenate([piece.rows for piece in written])
    crc32[index.live_ids] = np.concatenate([piece.crc32 for piece in written])
    (folder / REJECTED).write_bytes(rejected_table([]))
    write_index(
        folder,
        rows=rows,
        crc32=crc32,
        keys=index.keys,
        classes=index.manifest.classes,
        containers=containers,
        rejected=0,
        settings={
            "subset_of": index.location,
            "ids": index.subset_sha256,
            "shard_size": shard_size,
        },
        storage=format,
        contents=index.contents,
        base=index.identity,
    )
