"""`coke ingest`: an image collection becomes a data set.

Two passes over the images. The first looks at every one and so fixes which are accepted, and with
that the ids; the second writes the containers. Ids depend on the keys (and on the base) alone,
bytes on the keys and settings; neither on the engine, the number of workers, or interruptions.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from coke.distributed.workers import Mapper, default_workers, worker_pool
from coke.files.publish import Claim, claimed
from coke.pipeline.images.settings import MAX_PIXELS
from coke.pipeline.remote.remote import location
from coke.pipeline.sources import Source, Splits, find_splits, is_url
from coke.tools.console.tables import print_table
from coke.tools.datasets.dataset_kind import DATASET, REJECTED
from coke.tools.datasets.ingest_checks import darkness
from coke.tools.datasets.ingest_containers import write_containers
from coke.tools.datasets.ingest_first_pass import checked_images
from coke.tools.datasets.ingest_report import (
    IngestReport,
    SplitReport,
    one_line,
    pace,
    progress_display,
    rejected_table,
    summary,
)
from coke.tools.datasets.ingest_settings import IngestSettings, check_arguments, fingerprint
from coke.tools.datasets.ingest_side_files import write_side_files
from coke.tools.datasets.ingest_split import IngestRun, decide_split
from coke.tools.datasets.stable_ids import Base, find_bases, number_classes, read_bases
from coke.tools.datasets.upload import Upload

_IMAGES_PER_WORKER = 500  # a further worker costs more to start than it saves below this


def ingest(
    src: str | Path,
    out: str | Path,
    *,
    shard_size: int = 2000,
    workers: int | None = None,
    resize_shorter: int | None = None,
    quality: int = 95,
    sixteen_bit: str = "high-byte",
    max_pixels: int = MAX_PIXELS,
    orientation: str = "upright",
    labels: str = "auto",
    source: str = "auto",
    format: str = "wds",
    check: str = "decode",
    base: str | Path | None = None,
    match: str = "key",
    dedupe: str | None = None,
    engine: str = "process",
    ray_address: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    strict: bool = False,
    console: Console | None = None,
) -> IngestReport:
    """Makes the data set ``out`` (or ``out/<split>`` each) from the images in ``src``.

    Images that cannot be stored are left out and listed in ``rejected.tsv`` with the reason.
    ``out`` appears when everything is written, or not at all. What an interrupted ingest (Ctrl-C,
    a kill, a full disk) has finished is kept in ``.<out>.partial`` beside ``out`` (inside ``out``
    where that is a mounted volume's root: :mod:`coke.files.inner_place`); the same call
    goes on from there to the same bytes, with any number of workers on either engine. When source
    or settings have changed, that work is discarded; files that have changed are looked at again.
    A data set for a URL is made on the local disk and then sent:
    :mod:`coke.tools.datasets.upload`.

    Args:
        src: what holds the images, a path or URL; see :func:`find_splits`.
        out: the folder to make, a path or URL.
        shard_size: images per container; 0 for all in one.
        workers: processes; by default one per core, fewer for small collections.
        resize_shorter: shrink images whose shorter side is longer than this many pixels.
        quality: JPEG quality of images that must be encoded (good JPEGs are kept as they are).
        sixteen_bit: how 16-bit values become 8 bits: ``"high-byte"`` keeps the upper 8 of 16 bits,
            a number of bits such as ``"12"`` the upper 8 of so many, ``"scale"`` maps each
            image's own range to 0..255; see :mod:`coke.pipeline.images.pixels`.
        max_pixels: reject images of more pixels.
        orientation: ``"upright"`` applies the EXIF orientation, ``"keep"`` ignores it.
        labels: ``"auto"``, ``"folders"`` or ``"none"``; see :func:`find_splits`.
        source: the layout of ``src``; see :func:`find_splits`.
        format: of the containers: ``"wds"`` (tars) or ``"ffcv"`` (betons); ids, keys and images
            are the same.
        check: ``"decode"`` decodes every image, so that no bad one stops a training run;
            ``"header"`` trusts the pixels of JPEGs whose header and end are in order.
        base: an older data set, whose ids are kept: new images get ids behind its last, images
            that are gone leave tombstones, its classes keep their numbers. It may be ``out``
            itself, with ``overwrite``.
        match: ``"key"``, or ``"content"``: a file whose key the base does not know, with the bytes
            of one that is gone (by SHA-256), is that file renamed and keeps its id.
        dedupe: ``"report"`` lists files of equal bytes in ``duplicates.tsv``, ``"drop"`` leaves
            out all but the one with the smallest id. Splits are looked at one by one.
        engine: ``"process"`` or ``"ray"``; Ray needs a file system that all nodes share.
        ray_address: of an existing Ray cluster; see :func:`coke.distributed.ray_workers.ray_pool`.
        overwrite: replace the data set that is at ``out``.
        restart: forget what an interrupted ingest has finished.
        strict: make nothing when any image is rejected.
        console: where progress and summary go.

    Raises:
        ValueError: an argument is out of range, the source holds no usable images, ``base`` is no
            data set, ``out`` is taken or being written, or it cannot be written.
    """
    console = console or Console()
    settings = IngestSettings(
        shard_size=shard_size,
        resize_shorter=resize_shorter,
        quality=quality,
        sixteen_bit=sixteen_bit,
        max_pixels=max_pixels,
        orientation=orientation,
        labels=labels,
        source=source,
        check=check,
        format=format,
        match=match,
        dedupe=dedupe,
    )
    check_arguments(settings, workers, engine, has_base=base is not None)
    if base is not None and is_url(str(base)):
        raise ValueError(f"base is {base}; give a local copy of it, a URL cannot be a base yet")
    folder = location(out)
    started = time.monotonic()
    with ExitStack() as stack:
        upload = None
        if isinstance(folder, str):
            upload = Upload(folder, overwrite=overwrite, restart=restart, console=console)
            folder, overwrite = stack.enter_context(upload).folder, True
        _check_not_below_file(folder)
        if not is_url(str(src)):
            _check_apart(Path(src), folder)
        claim = stack.enter_context(
            claimed(folder, overwrite=overwrite, restart=restart, kind=DATASET, console=console)
        )
        if base is not None:
            find_bases(Path(base))  # asked before the source is listed, which may take minutes
        found = find_splits(src, labels=labels, source=source, scratch=claim.scratch)
        for note in found.notes:
            console.print(f"note: {one_line(note)}", soft_wrap=True, markup=False, highlight=False)
        command = fingerprint(settings, found, base)
        done = claim.finished(command)
        if done is None and upload is not None:
            done = upload.staged(command)
        if done is not None:
            console.print(f"{folder} was finished by an earlier run of the same command")
            report = _report_from(folder, done)
        else:
            report = _made(
                claim,
                folder,
                command,
                found,
                settings,
                strict=strict,
                base=base,
                pool=partial(_engine, engine, workers, ray_address),
                started=started,
                console=console,
            )
        if upload is not None:
            upload.keep(command, _about(report))
            upload.send()
            report = replace(report, out=upload.url, seconds=time.monotonic() - started)
    print_table(console, summary(report))
    console.print(pace(report), soft_wrap=True, highlight=False)
    return report


def _made(
    claim: Claim,
    out: Path,
    command: str,
    found: Splits,
    settings: IngestSettings,
    *,
    strict: bool,
    base: str | Path | None,
    pool: Callable[[dict[str, Source]], AbstractContextManager[Mapper]],
    started: float,
    console: Console,
) -> IngestReport:
    """Makes the data set and publishes it as ``out``."""
    bases = read_bases(Path(base), list(found)) if base is not None else {}
    sources = _numbered_like(bases, found)
    with (
        claim.workspace(command, _fingerprint_of(bases)) as work,
        progress_display(console) as progress,
        pool(sources) as run,
    ):
        shared = IngestRun(settings=settings, strict=strict, work=work, map=run, progress=progress)
        splits = _ingest_splits(shared, sources, bases)
        report = _reported(splits, found, out=out, started=started)
        if report.beside:
            beside = [(other.key, other.reason) for other in found.beside]
            (work.dataset / REJECTED).write_bytes(rejected_table(beside))
        work.publish(_about(report))
    return report


class Resumed(NamedTuple):
    """Pieces of a split that an interrupted run had finished."""

    images: int
    containers: int


def _check_not_below_file(out: Path) -> None:
    if file := next((folder for folder in out.parents if folder.is_file()), None):
        raise ValueError(f"out {out} lies below {file}, which is a file; choose another folder")


def _check_apart(src: Path, out: Path) -> None:
    if out.resolve().is_relative_to(src.resolve()):
        raise ValueError(f"out {out} lies inside the source {src}; choose a folder outside of it")
    if src.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"source {src} lies inside out {out}; choose another folder for out")


def _fingerprint_of(bases: dict[str, Base]) -> str:
    hashes = [[name, base.manifest_sha256] for name, base in bases.items()]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:8]


def _numbered_like(bases: dict[str, Base], sources: dict[str, Source]) -> dict[str, Source]:
    """The same images; classes have the numbers that the base gave them, new ones the next."""
    if not bases:
        return sources
    numbered = {}
    for name, source in sources.items():
        # Sources and bases agree on classes over their splits, so every split gets the same ones.
        classes, number = number_classes(source.classes, next(iter(bases.values())).classes)
        labels = tuple(-1 if label < 0 else number[label] for label in source.labels)
        numbered[name] = replace(source, classes=tuple(classes), labels=labels)
    return numbered


def _engine(
    engine: str, workers: int | None, ray_address: str | None, sources: dict[str, Source]
) -> AbstractContextManager[Mapper]:
    if engine == "ray":
        from coke.distributed.ray_workers import ray_pool

        return ray_pool(workers, address=ray_address)
    total = sum(map(len, sources.values()))
    workers = workers or min(default_workers(), 1 + total // _IMAGES_PER_WORKER)
    return worker_pool(workers, preload=("coke.tools.datasets.ingest_writes",))


def _ingest_splits(
    run: IngestRun, sources: dict[str, Source], bases: dict[str, Base]
) -> list[tuple[SplitReport, Resumed]]:
    splits = []
    for name, source in sources.items():
        for folder in (run.work.dataset, run.work.journal):
            (folder / name).mkdir(exist_ok=True)
        checked = checked_images(run, name, source)
        if warning := darkness(checked):
            run.progress.console.print(
                f"warning: {one_line(source.origin)}: {warning}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )
        split = decide_split(run, name, source, checked, bases.get(name))
        written = write_containers(run, split)
        resumed = Resumed(split.checked.resumed, sum(piece.resumed for piece in written))
        splits.append((write_side_files(run, split, written), resumed))
    return splits


def _reported(
    splits: list[tuple[SplitReport, Resumed]], found: Splits, *, out: Path, started: float
) -> IngestReport:
    report = IngestReport(
        out=out,
        splits=tuple(split for split, _ in splits),
        seconds=time.monotonic() - started,
        beside=sum(other.files for other in found.beside),
        resumed_images=sum(resumed.images for _, resumed in splits),
        resumed_containers=sum(resumed.containers for _, resumed in splits),
    )
    assert report.found == found.there, (
        f"{report.found} files are accounted for, {found.there} are there"
    )
    return report


def _about(report: IngestReport) -> dict[str, object]:
    return {
        "splits": [asdict(split) for split in report.splits],
        "seconds": report.seconds,
        "beside": report.beside,
    }


def _report_from(out: Path, done: dict[str, object]) -> IngestReport:
    splits, seconds, beside = done["splits"], done["seconds"], done["beside"]
    assert isinstance(splits, list) and isinstance(seconds, float) and isinstance(beside, int)
    parts = tuple(SplitReport(**split) for split in splits)
    return IngestReport(out=out, splits=parts, seconds=seconds, beside=beside)
