"""`coke ingest`: an image collection becomes a data set.

Two passes over the images. The first decodes every one and so fixes which are accepted, and with
that the ids; the second writes the containers. Ids depend on the keys alone, bytes on the keys
and settings; neither on the number of workers.
"""

from __future__ import annotations

import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coke.pipeline.containers import Candidate, ContainerPlan
from coke.pipeline.formats import CONTAINER_WRITERS
from coke.pipeline.index import write_index
from coke.pipeline.jpeg import check
from coke.pipeline.sources import Source, find_splits, key_problem
from coke.tools.publish import check_free, published
from coke.tools.workers import Mapper, default_workers, worker_pool

_CHUNK = 64  # images that a worker checks at a time
_IMAGES_PER_WORKER = 500  # a further worker costs more to start than it saves below this
_SHOWN = 5  # rejected keys that an error message names


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What became of one split (``name`` is empty when there is only one)."""

    name: str
    images: int
    classes: int
    rejected: int
    ignored: int
    containers: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingest did."""

    out: Path
    splits: tuple[SplitReport, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What decides the bytes of a data set besides its images."""

    shard_size: int
    resize_shorter: int | None
    quality: int
    labels: str
    format: str


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    source: Source
    resize_shorter: int | None


def ingest(
    src: str | Path,
    out: str | Path,
    *,
    shard_size: int = 2000,
    workers: int | None = None,
    resize_shorter: int | None = None,
    quality: int = 95,
    labels: str = "auto",
    format: str = "wds",
    overwrite: bool = False,
    strict: bool = False,
    console: Console | None = None,
) -> IngestReport:
    """Makes the data set ``out`` (or ``out/<split>`` each) from the images in ``src``.

    Images that cannot be stored are left out and listed in ``rejected.tsv`` with the reason.
    ``out`` appears when everything is written, or not at all.

    Args:
        src: class folders, a folder of images, splits of either, or MNIST-style IDX files.
        out: the folder to make.
        shard_size: images per container; 0 for all in one.
        workers: processes; by default one per core, fewer for small collections.
        resize_shorter: shrink images whose shorter side is longer than this many pixels.
        quality: JPEG quality of images that must be encoded (good JPEGs are kept as they are).
        labels: ``"auto"``, ``"folders"`` or ``"none"``; see :func:`find_splits`.
        format: ``"wds"`` (tars) or ``"ffcv"`` (betons); ids, keys and images are the same.
        overwrite: replace the data set that is at ``out``.
        strict: make nothing when any image is rejected.
        console: where progress and summary go.

    Raises:
        ValueError: an argument is out of range, the source holds no usable images, ``out`` is
            taken, or it cannot be written.
    """
    src, out = Path(src), Path(out)
    console = console or Console()
    settings = _Settings(
        shard_size=shard_size,
        resize_shorter=resize_shorter,
        quality=quality,
        labels=labels,
        format=format,
    )
    _check_arguments(settings, workers)
    if out.resolve().is_relative_to(src.resolve()):
        raise ValueError(f"out {out} lies inside the source {src}; choose a folder outside of it")
    if src.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"source {src} lies inside out {out}; choose another folder for out")
    check_free(out, overwrite=overwrite)
    started = time.monotonic()
    sources = find_splits(src, labels=labels)
    total = sum(map(len, sources.values()))
    workers = workers or min(default_workers(), 1 + total // _IMAGES_PER_WORKER)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with (
        published(out, overwrite=overwrite) as folder,
        progress,
        worker_pool(workers, preload=("webdataset", __name__)) as run,
    ):
        splits = tuple(
            _ingest_split(source, folder / name, name, settings, strict, run, progress)
            for name, source in sources.items()
        )
    report = IngestReport(out=out, splits=splits, seconds=time.monotonic() - started)
    console.print(_summary(report))
    return report


def _check_arguments(settings: _Settings, workers: int | None) -> None:
    if settings.format not in CONTAINER_WRITERS:
        raise ValueError(
            f"format is {settings.format!r}; choose one of {', '.join(CONTAINER_WRITERS)}"
        )
    if settings.shard_size < 0:
        raise ValueError(
            f"shard_size is {settings.shard_size}; give a number of images, or 0 for one container"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; give at least 1 process")
    if settings.resize_shorter is not None and settings.resize_shorter < 1:
        raise ValueError(f"resize_shorter is {settings.resize_shorter}; give at least 1 pixel")
    if not 1 <= settings.quality <= 100:
        raise ValueError(f"quality is {settings.quality}; JPEG quality goes from 1 to 100")


def _ingest_split(
    source: Source,
    folder: Path,
    name: str,
    settings: _Settings,
    strict: bool,
    run: Mapper,
    progress: Progress,
) -> SplitReport:
    folder.mkdir(exist_ok=True)
    chunks = [
        _Chunk(
            source=source.take(range(first, min(first + _CHUNK, len(source)))),
            resize_shorter=settings.resize_shorter,
        )
        for first in range(0, len(source), _CHUNK)
    ]
    task = progress.add_task(f"checking {name}".strip(), total=len(source))
    outcomes: list[Candidate | str] = []
    for checked in run(_check_chunk, chunks):
        outcomes += checked
        progress.update(task, advance=len(checked))

    candidates = [(i, o) for i, o in enumerate(outcomes) if not isinstance(o, str)]
    rejected = [(source.keys[i], o) for i, o in enumerate(outcomes) if isinstance(o, str)]
    if rejected and (strict or not candidates):
        raise ValueError(_rejection(source, rejected, strict=strict))
    others = [(key, "not an image file: its name ends otherwise") for key in source.ignored]
    (folder / "rejected.tsv").write_bytes(_rejected_table(rejected + others))

    plans: list[ContainerPlan] = []
    shard_size = settings.shard_size or len(candidates)
    for first in range(0, len(candidates), shard_size):
        part = candidates[first : first + shard_size]
        plans.append(
            ContainerPlan(
                folder=folder,
                number=len(plans),
                start=first,
                stop=first + len(part),
                ids=tuple(range(first, first + len(part))),
                records=source.take([i for i, _ in part]),
                candidates=tuple(candidate for _, candidate in part),
                resize_shorter=settings.resize_shorter,
                quality=settings.quality,
            )
        )
    task = progress.add_task(f"writing {name}".strip(), total=len(candidates))
    written = []
    for result in run(CONTAINER_WRITERS[settings.format], plans):
        written.append(result)
        progress.update(task, advance=len(result.rows))
    write_index(
        folder,
        crc32=np.concatenate([w.crc32 for w in written]),
        rows=np.concatenate([w.rows for w in written]),
        keys=[source.keys[i] for i, _ in candidates],
        classes=list(source.classes),
        containers=[w.container for w in written],
        rejected=len(rejected),
        settings={
            "shard_size": settings.shard_size,
            "resize_shorter": settings.resize_shorter,
            "quality": settings.quality,
            "labels": settings.labels,
        },
        storage=settings.format,
    )
    return SplitReport(
        name=name,
        images=len(candidates),
        classes=len(source.classes),
        rejected=len(rejected),
        ignored=len(source.ignored),
        containers=len(written),
        bytes=sum(w.container.size for w in written),
    )


def _check_chunk(chunk: _Chunk) -> list[Candidate | str]:
    """Decodes images; for each what is needed to store it, or the reason why it cannot be."""
    outcomes: list[Candidate | str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's; an image is either accepted or rejected
        for i, key in enumerate(chunk.source.keys):
            if problem := key_problem(key):
                outcomes.append(problem)
                continue
            try:
                data = chunk.source.read(i)
                verdict = check(data, resize_shorter=chunk.resize_shorter)
                outcomes.append(Candidate(verdict=verdict, crc32=zlib.crc32(data)))
            except OSError as error:
                outcomes.append(f"cannot be read: {error.strerror}")
            except ValueError as error:
                outcomes.append(str(error))
    return outcomes


def _rejection(source: Source, rejected: list[tuple[str, str]], *, strict: bool) -> str:
    shown = "; ".join(f"{_line(key)}: {_line(reason)}" for key, reason in rejected[:_SHOWN])
    more = f"; and {len(rejected) - _SHOWN} more" if len(rejected) > _SHOWN else ""
    remedy = "remove them or leave out --strict" if strict else "nothing is left to ingest"
    return (
        f"{len(rejected)} of {len(source)} images in {source.origin} were rejected "
        f"({shown}{more}); {remedy}"
    )


def _rejected_table(rejected: list[tuple[str, str]]) -> bytes:
    lines = ["key\treason", *(f"{_line(key)}\t{_line(reason)}" for key, reason in rejected)]
    return "".join(f"{line}\n" for line in lines).encode()


def _line(text: str) -> str:
    """Text as one field of one line: names may hold line breaks, tabs and stray bytes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _summary(report: IngestReport) -> Table:
    table = Table(title=f"{report.out}")
    for column in ("split", "images", "classes", "rejected", "other files", "containers", "size"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in report.splits:
        table.add_row(
            split.name or "-",
            f"{split.images:,}",
            f"{split.classes:,}",
            f"{split.rejected:,}",
            f"{split.ignored:,}",
            f"{split.containers:,}",
            f"{split.bytes / 1e6:,.1f} MB",
        )
    images = sum(split.images for split in report.splits)
    table.caption = f"{report.seconds:.1f} s, {images / max(report.seconds, 1e-9):,.0f} images/s"
    return table
