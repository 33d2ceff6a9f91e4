"""Stable ids: the rank of an image among the sorted keys, or its id in an older data set.

Ids of an older data set (the base) are never moved and never given to another image. An image
that is gone leaves a tombstone, which keeps its key, so it gets its id back when it returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.files.hashing import file_sha256
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import is_dataset
from coke.pipeline.loading.reader import RecordReader

MATCHES = ("key", "content")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The parts of an older data set that a new one keeps. N counts ids, including tombstones.

    Attributes:
        keys: (N,) key of each id.
        live: (N,) bool; False = tombstone.
        contents: (N, 32) uint8, SHA-256 of the source file of each id; zeros where not recorded.
        classes: names of its labels.
        identity: :attr:`ImageIndex.identity`.
        folder: where it is.
        manifest_sha256: of its ``manifest.json``, which has hashes of all other files.
    """

    keys: list[str]
    live: NDArray[np.bool_]
    contents: NDArray[np.uint8]
    classes: list[str]
    identity: str
    folder: Path
    manifest_sha256: str

    def content(self, image_id: int) -> bytes:
        """SHA-256 of the source file of an id; of the stored image where only that is known.

        They are the same for JPEGs stored as they were, and those are what is not recorded.

        Raises:
            ValueError: the image is needed, and its container is missing.
        """
        recorded: bytes = self.contents[image_id].tobytes()
        if any(recorded) or not self.live[image_id]:
            return recorded
        return hashlib.sha256(self._reader.read([image_id])[0].tobytes()).digest()

    @cached_property
    def _reader(self) -> RecordReader:
        return RecordReader(ImageIndex(self.folder))


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The ids of a new data set, N of them.

    Attributes:
        keys: (N,) key of each id.
        positions: (N,) int64, which of the images has the id; -1 = tombstone.
        contents: (N, 32) uint8, SHA-256 of each source file, zeros where it was not taken; of a
            tombstone, the last known.
    """

    keys: list[str]
    positions: NDArray[np.int64]
    contents: NDArray[np.uint8]

    @property
    def live_ids(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.positions >= 0)


def find_bases(folder: Path) -> dict[str, Path]:
    """The data set of each split of a base, by the split's name; ``""`` where there are no splits.

    Raises:
        ValueError: ``folder`` is no data set.
    """
    if is_dataset(folder):
        return {"": folder}
    parts = sorted(folder.iterdir()) if folder.is_dir() else []
    if found := {part.name: part for part in parts if is_dataset(part)}:
        return found
    raise ValueError(
        f"base {folder} is no data set (no manifest.json in it, nor in a folder below); give "
        "the folder of an older `coke ingest`"
    )


def read_bases(folder: Path, splits: Sequence[str]) -> dict[str, Base]:
    """The base of each split of a new data set; splits that the old one lacks are left out.

    Raises:
        ValueError: ``folder`` is no data set, or has a split that the new one would lose.
    """
    found = find_bases(folder)
    if lost := [name for name in found if name not in splits]:
        raise ValueError(
            f"base {folder} has {_named(lost)}, the source has {_named(list(splits))}: their ids "
            "would be lost; give a base and a source with the same splits"
        )
    bases = {name: _read_base(part) for name, part in found.items()}
    classes = next(iter(bases.values())).classes
    for name, base in bases.items():
        if base.classes != classes:
            raise ValueError(
                f"the splits of base {folder} number classes differently (see manifest.json in "
                f"{next(iter(bases))} and {name}); ingest them together first"
            )
    return bases


def _named(splits: list[str]) -> str:
    return "no splits" if splits == [""] else f"splits {', '.join(splits)}"


def _read_base(folder: Path) -> Base:
    index = ImageIndex(folder)
    contents = index.contents
    if contents is None:
        contents = np.zeros((len(index), 32), np.uint8)
    if len(index.keys) != len(index) or len(contents) != len(index):
        raise ValueError(f"base {folder} is damaged; `coke verify {folder}` tells more")
    return Base(
        keys=index.keys,
        live=index.rows["length"] > 0,
        contents=contents,
        classes=index.manifest.classes,
        identity=index.identity,
        folder=folder,
        manifest_sha256=file_sha256(folder / "manifest.json"),
    )


def assign_ids(
    keys: Sequence[str], contents: NDArray[np.uint8], *, base: Base | None, match: str
) -> Assignment:
    """Gives ids to images.

    Images whose key the base knows get its id. With ``match="content"``, an image under a new key
    then gets the id of an image of the same bytes whose key is gone; among equals, ids that had
    an image come before tombstones, small ids before large, and keys keep their order. All others
    get new ids behind the last, in their order.

    Args:
        keys: (n,) of the images, sorted by UTF-8 bytes.
        contents: (n, 32) SHA-256 of their files; all of them, to match by content.
        base: the older data set.
        match: ``"key"`` or ``"content"``.
    """
    positions = np.arange(len(keys), dtype=np.int64)
    if base is None:
        return Assignment(keys=list(keys), positions=positions, contents=contents)
    old_keys = list(base.keys)
    id_of = {key: image_id for image_id, key in enumerate(old_keys)}
    old = np.full(len(old_keys), -1, dtype=np.int64)
    new: list[int] = []
    for position, key in enumerate(keys):
        image_id = id_of.get(key)
        if image_id is None:
            new.append(position)
        else:
            old[image_id] = position
    known = base.contents.copy()
    if match == "content":
        gone = np.flatnonzero(old < 0)
        free: dict[bytes, list[int]] = {}
        for image_id in gone[np.lexsort((gone, ~base.live[gone]))].tolist():
            content = base.content(image_id)
            known[image_id] = np.frombuffer(content, np.uint8)
            free.setdefault(content, []).append(image_id)
        still_new: list[int] = []
        for position in new:
            same = free.get(contents[position].tobytes())
            if same:
                image_id = same.pop(0)
                old[image_id], old_keys[image_id] = position, keys[position]
            else:
                still_new.append(position)
        new = still_new
    positions = np.concatenate([old, np.array(new, dtype=np.int64)])
    merged = np.concatenate([known, np.zeros((len(new), 32), np.uint8)])
    merged[positions >= 0] = contents[positions[positions >= 0]]
    return Assignment(
        keys=[*old_keys, *(keys[position] for position in new)],
        positions=positions,
        contents=merged,
    )


def number_classes(names: Sequence[str], old: Sequence[str]) -> tuple[list[str], list[int]]:
    """All class names, the old ones with their numbers, then the new; the number of each name."""
    numbers = {name: label for label, name in enumerate(old)}
    for name in names:
        numbers.setdefault(name, len(numbers))
    return list(numbers), [numbers[name] for name in names]
