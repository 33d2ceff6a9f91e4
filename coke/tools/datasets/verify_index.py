"""How `coke verify` checks the files beside the containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.files.hashing import file_sha256
from coke.pipeline.dataset.index import ImageIndex

SHOWN = 20  # problems of one kind, or of one container, that are listed one by one
_ALWAYS = {"manifest.json", "index.npy", "keys.txt", "checksums.npy", "rejected.tsv"}
_SOMETIMES = {"contents.npy", "duplicates.tsv"}


def file_problems(index: ImageIndex, others: Iterable[str]) -> Iterator[str]:
    """Files that are missing, changed, or no part of the data set; ``others`` lists all names."""
    folder, manifest = index.folder, index.manifest
    for name, sha256 in manifest.file_hashes().items():
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
    for name in others:
        if name not in known:
            yield f"{folder / name}: not part of the data set"


def keys_of(index: ImageIndex) -> list[str]:
    """Keys of all ids; none where they cannot be read."""
    try:
        return list(index.keys)
    except (OSError, ValueError):  # the hash has been reported already
        return []


def checksums_of(path: Path, n: int) -> NDArray[np.uint32] | None:
    """CRC-32 of each image (n,); None where they cannot be read."""
    try:
        found = np.load(path)
    except Exception:
        return None
    return found if found.shape == (n,) and found.dtype == np.uint32 else None


def range_problems(index: ImageIndex) -> Iterator[str]:
    """Ids that no container answers for, or another one than the index says."""
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


def tombstone_problems(
    index: ImageIndex, keys: list[str], crc32: NDArray[np.uint32] | None
) -> Iterator[str]:
    """Rows of ids without an image that still describe an image."""
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
    for image_id in tombstones[says][:SHOWN].tolist():
        yield (
            f"{index.folder / 'index.npy'}: id {image_id}, key {keys[image_id]}: has no image "
            "(length 0), but an offset, a label, a size or a CRC-32"
        )
