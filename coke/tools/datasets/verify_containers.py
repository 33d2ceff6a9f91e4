"""How `coke verify` checks a container: its hash, and its records against the index."""

from __future__ import annotations

import mmap
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.files.hashing import file_sha256
from coke.pipeline.containers.tar import Member, dali_index, record_name, tar_members
from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.images.jpeg import decode_problem
from coke.tools.datasets.verify_beton import beton_problems


@dataclass(frozen=True, kw_only=True)
class Job:
    """One container to check, and the parts of the data set that its check needs."""

    index: ImageIndex
    keys: list[str]
    crc32: NDArray[np.uint32] | None
    number: int
    decode: NDArray[np.bool_]
    names_by_hash: dict[str, str]


def container_problems(job: Job, container: Container, path: Path) -> Iterator[str]:
    """One line per problem of a container that is there, whatever its format."""
    size = path.stat().st_size
    if size != container.size:
        yield f"{path}: has {size} bytes, the manifest says {container.size}"
    sha256 = file_sha256(path)
    if sha256 != container.sha256:
        other = job.names_by_hash.get(sha256)
        yield f"{path}: " + (
            f"holds what belongs into {other}"
            if other
            else "was changed (its hash is not the manifest's)"
        )
    if job.index.manifest.storage == "ffcv":
        if size:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                yield from beton_problems(
                    job.index, container, path, job.keys, data, partial(_image_problem, job)
                )
        return
    members: list[Member] = []
    try:
        members.extend(tar_members(path))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield f"{path}: tar headers are damaged behind member {len(members)} ({error})"
    if sha256 == container.sha256:
        dali = path.with_suffix(".idx")
        if not dali.is_file() or dali.read_bytes() != dali_index(members).encode():
            yield f"{dali}: missing or damaged; only DALI's own reader needs it"
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        by_name = {member.name: member for member in members}
        ids = range(container.start, min(container.stop, len(job.index)))
        live = job.index.rows["length"][ids.start : ids.stop] > 0
        expected = {record_name(image_id) for image_id in np.arange(len(ids))[live] + ids.start}
        strays = sorted({member.name.partition(".")[0] for member in members} - expected)
        if strays:
            yield (
                f"{path}: holds {len(strays)} records that the index does not have there, the "
                f"first is {strays[0]}"
            )
        for image_id, is_live in zip(ids, live, strict=True):
            if not is_live:
                continue
            problem = _record_problem(job, image_id, by_name, data)
            if problem is not None:
                offset = int(job.index.rows["offset"][image_id])
                key = job.keys[image_id]
                yield f"{path}: offset {offset}, id {image_id}, key {key}: {problem}"


def _record_problem(
    job: Job, image_id: int, members: dict[str, Member], data: mmap.mmap
) -> str | None:
    row = job.index.rows[image_id]
    offset, length, label = int(row["offset"]), int(row["length"]), int(row["label"])
    if offset + length > len(data):
        return f"ends at byte {offset + length}, the file at {len(data)}"
    stem = record_name(image_id)
    jpeg = members.get(f"{stem}.jpg")
    if jpeg is None:
        return f"the tar has no readable member {stem}.jpg"
    if (jpeg.offset, jpeg.size) != (offset, length):
        return f"{stem}.jpg is {jpeg.size} bytes at offset {jpeg.offset}, the index says {length}"

    def text(extension: str) -> str | None:
        member = members.get(f"{stem}.{extension}")
        if member is None:
            return None
        return data[member.offset : member.offset + member.size].decode(errors="replace")

    if text("id") != str(image_id):
        return f"{stem}.id says {text('id')!r}"
    if text("cls") != (None if label < 0 else str(label)):
        return f"{stem}.cls says {text('cls')!r}, the index label {label}"
    return _image_problem(job, image_id, data[offset : offset + length])


def _image_problem(job: Job, image_id: int, encoded: bytes) -> str | None:
    differs = job.crc32 is not None and zlib.crc32(encoded) != int(job.crc32[image_id])
    raw = job.index.rows["encoding"][image_id] == RAW_RGB  # any bytes are pixels
    if not raw and (differs or job.decode[image_id]):
        problem = decode_problem(encoded)
        if problem is not None:
            return f"cannot be decoded: {problem}"
    return "its CRC-32 is not the one in checksums.npy, though it decodes" if differs else None
