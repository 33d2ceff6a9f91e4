"""Containers: WebDataset tars that any WebDataset or DALI reader can read, byte-reproducible.

The unit of work is one container, a pure function of its plan, so any process or machine may
write any container. A record is ``<id>.jpg``, ``<id>.id`` (the id as text) and, for labelled
images, ``<id>.cls``. Beside each tar lies DALI's ``.idx``.
"""

from __future__ import annotations

import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.index import INDEX_DTYPE, JPEG, Container, file_sha256
from coke.pipeline.jpeg import PreparedImage, Verdict, prepare
from coke.pipeline.sources import Source


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the first pass found out about an image that is accepted."""

    verdict: Verdict
    crc32: int  # of the file, so that a change between the passes is noticed


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """Everything that decides the bytes of one container, and where it goes.

    ``ids`` are of the records, ascending; the container answers for ids [start, stop).
    """

    folder: Path
    number: int
    start: int
    stop: int
    ids: tuple[int, ...]
    records: Source
    candidates: tuple[Candidate, ...]
    resize_shorter: int | None
    quality: int


@dataclass(frozen=True, kw_only=True)
class WrittenContainer:
    """A container on disk; one row of the index and a CRC-32 for each of its records."""

    container: Container
    rows: NDArray[np.void]
    crc32: NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file inside a tar."""

    name: str
    offset: int
    size: int


def container_name(number: int) -> str:
    return f"images-{number:05d}.tar"


def record_name(image_id: int) -> str:
    """The part of a record's member names that its files share."""
    return f"{image_id:09d}"


def write_container(plan: ContainerPlan) -> WrittenContainer:
    """Writes one container and its DALI index.

    Raises:
        ValueError: an image changed or vanished since it was checked.
        OSError: the container cannot be written.
    """
    # Imported here because webdataset imports torch, which costs seconds nobody else should pay.
    from webdataset import TarWriter

    path = plan.folder / container_name(plan.number)
    count = len(plan.records)
    assert len(plan.ids) == len(plan.candidates) == count
    rows = np.zeros(count, dtype=INDEX_DTYPE)
    crc32 = np.zeros(count, dtype=np.uint32)
    with (
        path.open("wb") as file,
        # Fixed metadata: the bytes must not depend on who writes them, and when.
        TarWriter(file, encoder=False, mtime=0, user="coke", group="coke", mode=0o644) as tar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # PIL's; the checking pass has decided about them
        for i in range(count):
            image_id = plan.ids[i]
            image, label = prepared_image(plan, i), plan.records.labels[i]
            record: dict[str, str | bytes] = {"__key__": record_name(image_id), "jpg": image.data}
            record["id"] = str(image_id).encode()
            if label >= 0:
                record["cls"] = str(label).encode()
            tar.write(record)
            rows[i] = (0, plan.number, len(image.data), label, image.height, image.width, JPEG)
            crc32[i] = zlib.crc32(image.data)
    members = list(tar_members(path))
    jpegs = [member for member in members if member.name.endswith(".jpg")]
    assert [m.size for m in jpegs] == rows["length"].tolist(), f"{path} does not read back"
    rows["offset"] = [member.offset for member in jpegs]
    path.with_suffix(".idx").write_text(dali_index(members))
    container = Container(
        name=path.name,
        size=path.stat().st_size,
        sha256=file_sha256(path),
        start=plan.start,
        stop=plan.stop,
    )
    return WrittenContainer(container=container, rows=rows, crc32=crc32)


def prepared_image(plan: ContainerPlan, i: int) -> PreparedImage:
    """What record ``i`` of a container stores.

    Raises:
        ValueError: the image changed or vanished since it was checked.
    """
    source, candidate = plan.records, plan.candidates[i]
    try:
        data = source.read(i)
    except OSError as error:
        data, gone = b"", f" ({error.strerror})"
    else:
        gone = ""
    if zlib.crc32(data) != candidate.crc32:
        raise ValueError(
            f"{source.describe(i)} changed while it was being ingested{gone}; "
            "run again when nothing else writes to the source"
        )
    verdict = candidate.verdict
    if verdict.as_is:  # the first pass decoded these very bytes
        return PreparedImage(data=data, height=verdict.height, width=verdict.width)
    return prepare(data, resize_shorter=plan.resize_shorter, quality=plan.quality)


def tar_members(path: Path) -> Iterator[Member]:
    """Files inside a tar, in order, from its headers.

    Raises:
        tarfile.TarError: the tar is damaged.
    """
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            if info.isfile():
                yield Member(name=info.name, offset=info.offset_data, size=info.size)


def dali_index(members: list[Member]) -> str:
    """DALI's index of a tar, as its ``wds2idx`` writes it: one line per record."""
    records: dict[str, list[str]] = {}
    for member in members:
        stem, _, extension = member.name.partition(".")
        records.setdefault(stem, []).append(
            f"{extension} {member.offset} {member.size} {member.name}"
        )
    return f"v1.2 {len(records)}\n" + "".join(f"{' '.join(r)}\n" for r in records.values())
