"""Containers: WebDataset tars that any WebDataset or DALI reader can read, byte-reproducible.

The unit of work is one container, a pure function of its plan, so any process or machine may
write any container. A record is ``<id>.jpg``, ``<id>.id`` (the id as text) and, for labelled
images, ``<id>.cls``. Beside each tar lies DALI's ``.idx``.
"""

from __future__ import annotations

import hashlib
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.index import INDEX_DTYPE, JPEG
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.images.jpeg import PreparedImage, Verdict, prepare
from coke.pipeline.images.settings import StorageSettings
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
    settings: StorageSettings


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
    path = plan.folder / container_name(plan.number)
    count = len(plan.records)
    assert len(plan.ids) == len(plan.candidates) == count
    rows = np.zeros(count, dtype=INDEX_DTYPE)
    crc32 = np.zeros(count, dtype=np.uint32)
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's; the checking pass has decided about them
        tar = _TarWriter(file)
        for i in range(count):
            image_id = plan.ids[i]
            stem, label = record_name(image_id), plan.records.labels[i]
            image = prepared_image(plan, i)
            texts = {"cls": str(label)} if label >= 0 else {}
            files = {kind: text.encode() for kind, text in {**texts, "id": str(image_id)}.items()}
            offset = tar.add(stem, {**files, "jpg": image.data})
            as_is = plan.candidates[i].verdict.as_is  # then the file's CRC-32 is the image's
            crc32[i] = plan.candidates[i].crc32 if as_is else zlib.crc32(image.data)
            rows[i] = (offset, plan.number, len(image.data), label, image.height, image.width, JPEG)
        tar.close()
    path.with_suffix(".idx").write_text(dali_index(tar.members))
    container = Container(
        name=path.name,
        size=tar.size,
        sha256=tar.sha256.hexdigest(),
        start=plan.start,
        stop=plan.stop,
    )
    return WrittenContainer(container=container, rows=rows, crc32=crc32)


class _TarWriter:
    """Writes the very bytes that webdataset's TarWriter writes, at the speed of the disk.

    The standard library takes 45 microseconds for a header, three headers per record: more than
    reading and hashing an image. Metadata is fixed, because bytes must not depend on who writes
    them and when, so a header is a constant with a name, a size and a sum put in.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.members: list[Member] = []
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = file
        self._padding = b""  # behind the last file, not yet written
        blank = tarfile.TarInfo("")
        blank.mode, blank.mtime, blank.uname, blank.gname = 0o644, 0, "coke", "coke"
        self._blank = blank.tobuf(tarfile.USTAR_FORMAT)
        # Fields, by the ustar format: name 0..100, size 124..136, checksum 148..156. The sum is
        # of all bytes of the header, those of the checksum taken as blanks.
        self._sum = sum(self._blank[:124] + self._blank[136:148] + b" " * 8 + self._blank[156:])

    def add(self, stem: str, files: dict[str, bytes]) -> int:
        """Appends the files of a record, by extension; where the bytes of the last one start."""
        pieces, position = [self._padding], self.size + len(self._padding)
        for extension, data in files.items():
            name = f"{stem}.{extension}"
            position += tarfile.BLOCKSIZE
            self.members.append(Member(name=name, offset=position, size=len(data)))
            offset = position
            padding = bytes(-len(data) % tarfile.BLOCKSIZE)
            position += len(data) + len(padding)
            pieces += [self._header(name, len(data)), data, padding]
        # Small pieces go together, the image by itself: it is not copied once more.
        *small, image, self._padding = pieces
        self._write(b"".join(small))
        self._write(image)
        return offset

    def _header(self, name: str, size: int) -> bytes:
        name_field, size_field = name.encode(), b"%011o\0" % size
        blank = self._blank
        checksum = b"%06o\0 " % (self._sum + sum(name_field) + sum(size_field))
        header = b"".join(
            (
                name_field.ljust(100, b"\0"),
                blank[100:124],
                size_field,
                blank[136:148],
                checksum,
                blank[156:],
            )
        )
        assert len(header) == tarfile.BLOCKSIZE, f"{name} does not fit into a header"
        return header

    def close(self) -> None:
        """Ends the tar as the format asks: two empty blocks, then whole records of 20 blocks."""
        self._write(self._padding + bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))
        self._file.flush()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)  # on the way: reading the container again would cost as much
        self.size += len(data)


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
    if verdict.as_is:  # the first pass checked these very bytes
        return PreparedImage(data=data, height=verdict.height, width=verdict.width)
    return prepare(data, plan.settings)


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
