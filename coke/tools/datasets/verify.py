"""`coke verify`: does a data set on disk still hold what was ingested?

Hashes find any damage; the rest of the checks say which records it hit. Nothing here may fail on
damaged files: what cannot be read is a problem to list.
"""

from __future__ import annotations

import mmap
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coke.distributed.workers import default_workers
from coke.files.hashing import file_sha256
from coke.files.kind import entries
from coke.pipeline.containers.tar import Member, dali_index, record_name, tar_members
from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.dataset.open import is_dataset
from coke.pipeline.images.jpeg import decode_problem
from coke.tools.datasets.verify_beton import beton_problems

_SHOWN = 20  # problems of one container that are listed one by one
_ALWAYS = {"manifest.json", "index.npy", "keys.txt", "checksums.npy", "rejected.tsv"}
_SOMETIMES = {"contents.npy", "duplicates.tsv"}


def verify(
    folder: str | Path, *, decode: int | Literal["all"] = 200, console: Console | None = None
) -> list[str]:
    """Checks a data set, or every data set in a folder of splits.

    Args:
        folder: what `coke ingest` made.
        decode: how many images to decode, spread evenly over the ids; or ``"all"``.
        console: where progress and findings go.

    Returns:
        One line per problem; records are named by container, offset, id and key. Empty when the
        data set is sound.

    Raises:
        ValueError: ``folder`` does not exist, or ``decode`` is no number of images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"data set {folder} does not exist; give a folder `coke ingest` made")
    if (isinstance(decode, str) and decode != "all") or (
        not isinstance(decode, str) and decode < 0
    ):
        raise ValueError(f"decode is {decode!r}; give a number of images, or 'all'")
    console = console or Console(soft_wrap=True)
    problems: list[str] = []
    for part in _datasets(folder):
        try:
            problems += _verify_dataset(part, decode, console)
        except Exception as error:
            problems.append(f"{part}: cannot be checked further ({type(error).__name__}: {error})")
    for problem in problems:
        console.print(problem, markup=False, highlight=False)
    verdict = f"{len(problems)} problems" if problems else "sound: every hash and record agrees"
    console.print(f"{folder}: {verdict}", markup=False, highlight=False)
    return problems


def _datasets(folder: Path) -> list[Path]:
    """The folder itself, or those of its sub folders that hold any file of a data set."""
    if is_dataset(folder):
        return [folder]
    parts = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return [p for p in parts if any((p / name).exists() for name in _ALWAYS)] or [folder]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One container to check, and what all of them need."""

    index: ImageIndex
    keys: list[str]
    crc32: NDArray[np.uint32] | None
    number: int
    decode: NDArray[np.bool_]
    names_by_hash: dict[str, str]


def _verify_dataset(folder: Path, decode: int | Literal["all"], console: Console) -> list[str]:
    try:
        index = ImageIndex(folder)
    except Exception as error:
        return [str(error)]
    n, manifest = len(index), index.manifest
    problems = list(_file_problems(index))
    keys = _keys(index)
    if len(keys) != n:
        problems.append(f"{folder / 'keys.txt'}: {len(keys)} keys for {n} ids")
        keys += ["?"] * (n - len(keys))
    crc32 = _checksums(folder / "checksums.npy", n)
    chosen = np.zeros(n, dtype=np.bool_)
    if decode == "all":
        chosen[:] = True
    elif n:
        chosen[np.linspace(0, n - 1, min(decode, n)).round().astype(np.int64)] = True
    problems += _range_problems(index)
    problems += _tombstone_problems(index, keys, crc32)
    names_by_hash = {container.sha256: container.name for container in manifest.containers}
    jobs = [
        _Job(
            index=index,
            keys=keys,
            crc32=crc32,
            number=number,
            decode=chosen,
            names_by_hash=names_by_hash,
        )
        for number in range(len(manifest.containers))
    ]
    # Threads suffice: hashing and decoding leave the interpreter lock to the others.
    pool = ThreadPoolExecutor(default_workers())
    try:
        checked = pool.map(_check_container, jobs)
        title = f"verifying {folder.name}"
        for found in track(checked, title, len(jobs), console=console, transient=True):
            problems += found[:_SHOWN]
            if len(found) > _SHOWN:
                where = found[0].partition(": ")[0]
                problems.append(f"{where}: {len(found) - _SHOWN} more problems")
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C need not wait for the rest
    return problems


def _file_problems(index: ImageIndex) -> Iterator[str]:
    folder, manifest = index.folder, index.manifest
    hashes = {
        "index.npy": manifest.index_sha256,
        "keys.txt": manifest.keys_sha256,
        "checksums.npy": manifest.checksums_sha256,
    }
    if manifest.contents_sha256:
        hashes["contents.npy"] = manifest.contents_sha256
    for name, sha256 in hashes.items():
        if not (folder / name).is_file():
            yield f"{folder / name}: missing"
        elif file_sha256(folder / name) != sha256:
            yield f"{folder / name}: was changed (its hash is not the manifest's)"
    containers = {container.name for container in manifest.containers}
    known = (
        _ALWAYS
        | _SOMETIMES
        | containers
        | {Path(name).with_suffix(".idx").name for name in containers}
    )
    for path in entries(folder):
        if path.name not in known:
            yield f"{path}: not part of the data set"


def _keys(index: ImageIndex) -> list[str]:
    try:
        return list(index.keys)
    except (OSError, ValueError):  # the hash has been reported already
        return []


def _checksums(path: Path, n: int) -> NDArray[np.uint32] | None:
    try:
        found = np.load(path)
    except Exception:
        return None
    return found if found.shape == (n,) and found.dtype == np.uint32 else None


def _range_problems(index: ImageIndex) -> Iterator[str]:
    stop = 0
    for number, container in enumerate(index.manifest.containers):
        where = f"{index.folder / container.name}"
        if container.start != stop or container.stop < container.start:
            yield (
                f"{where}: holds ids {container.start}..{container.stop - 1} by the manifest, "
                f"but the container before it ends at {stop - 1}"
            )
        elif (index.rows["container"][container.start : container.stop] != number).any():
            yield f"{where}: the index puts some of its ids into other containers"
        stop = container.stop
    if stop != len(index):
        yield f"{index.folder}: containers end at id {stop - 1}, the index at {len(index) - 1}"


def _tombstone_problems(
    index: ImageIndex, keys: list[str], crc32: NDArray[np.uint32] | None
) -> Iterator[str]:
    """Ids without an image must say nothing of one: only their container's number is left."""
    tombstones = np.flatnonzero(index.rows["length"] == 0)
    if len(tombstones) != index.manifest.tombstones:
        yield (
            f"{index.folder / 'index.npy'}: {len(tombstones)} ids have no image, the manifest says "
            f"{index.manifest.tombstones}"
        )
    rows = index.rows[tombstones]
    says = rows["label"] != -1
    for field in ("offset", "height", "width", "encoding"):
        says |= rows[field] != 0
    if crc32 is not None:
        says |= crc32[tombstones] != 0
    for image_id in tombstones[says][:_SHOWN].tolist():
        yield (
            f"{index.folder / 'index.npy'}: id {image_id}, key {keys[image_id]}: has no image "
            "(length 0), but an offset, a label, a size or a CRC-32"
        )


def _check_container(job: _Job) -> list[str]:
    container = job.index.manifest.containers[job.number]
    path = job.index.folder / container.name
    if not path.is_file():
        return [f"{path}: missing, and with it ids {container.start}..{container.stop - 1}"]
    try:
        return list(_container_problems(job, container, path))
    except Exception as error:
        return [f"{path}: cannot be checked further ({type(error).__name__}: {error})"]


def _container_problems(job: _Job, container: Container, path: Path) -> Iterator[str]:
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
    job: _Job, image_id: int, members: dict[str, Member], data: mmap.mmap
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


def _image_problem(job: _Job, image_id: int, encoded: bytes) -> str | None:
    differs = job.crc32 is not None and zlib.crc32(encoded) != int(job.crc32[image_id])
    raw = job.index.rows["encoding"][image_id] == RAW_RGB  # any bytes are pixels
    if not raw and (differs or job.decode[image_id]):
        problem = decode_problem(encoded)
        if problem is not None:
            return f"cannot be decoded: {problem}"
    return "its CRC-32 is not the one in checksums.npy, though it decodes" if differs else None
