"""CIFAR-10 and CIFAR-100 as they are handed out: pickled batches, or binary ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.sources import storage
from coke.pipeline.sources.draft import Draft, Drafts, unread
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.plain_pickle import load_plain

_SIDE, _PIXELS = 32, 3 * 32 * 32
_BATCH = re.compile(r"(?P<folder>(?:.*/)?)data_batch_(?P<number>\d+)(?P<bin>\.bin)?")
_LABELS = (b"labels", b"fine_labels")


class _Batch(NamedTuple):
    """Pixels (n, 3, 32, 32) uint8, labels (n,) or None."""

    pixels: NDArray[np.uint8]
    labels: list[int] | None


class _Files(NamedTuple):
    """The files of a collection: the batches of each split, and names of its classes."""

    splits: dict[str, list[str]]
    classes: str
    label_bytes: int  # of a binary record; the last one counts


@dataclass(frozen=True)
class CifarImages:
    """Images in batches: (n, 2) int32 of index into ``paths`` and row."""

    paths: tuple[str, ...]
    cells: NDArray[np.int32]
    label_bytes: int

    def read(self, i: int) -> bytes:
        path = self.path(i)
        batch = _batch(path, self.label_bytes, storage.stamp(path))
        pixels = batch.pixels[int(self.cells[i, 1])].transpose(1, 2, 0)
        header = f"P6 {_SIDE} {_SIDE} 255\n".encode()
        return header + bytes(pixels.tobytes())

    def describe(self, i: int) -> str:
        return f"image {self.cells[i, 1]} of {self.path(i)}"

    def path(self, i: int) -> str:
        return self.paths[int(self.cells[i, 0])]

    def take(self, positions: Sequence[int]) -> CifarImages:
        chosen = self.cells[np.asarray(positions, dtype=np.int64)]
        used, files = np.unique(chosen[:, 0], return_inverse=True)
        chosen[:, 0] = files
        return CifarImages(tuple(self.paths[i] for i in used), chosen, self.label_bytes)


def is_here(listing: Listing) -> bool:
    if listing.alone or listing.images:
        return False
    return _find(listing) is not None


def drafts(listing: Listing, labels: str) -> Drafts:
    """Train and test; keys are the numbers of the images in the order of the batches.

    So the pickled and the binary form give the same ids. CIFAR-100's labels are the fine ones.

    Raises:
        ValueError: there are no batches, one is missing, or one is damaged.
    """
    files = None if listing.alone else _find(listing)
    if files is None:
        raise ValueError(
            f"no batches of CIFAR in {listing.src}; give the folder with data_batch_1 or train "
            "(also .bin) in it, unpacked"
        )
    classes = _classes(listing, files.classes)
    found = {
        split: _draft(listing, names, files, classes, labels)
        for split, names in files.splits.items()
    }
    splits = found if len(found) > 1 else {"": found.popitem()[1]}
    return Drafts(splits=splits, beside=unread(listing, splits, "the images are in the batches"))


def _find(listing: Listing) -> _Files | None:
    if batches := [match for match in map(_BATCH.fullmatch, listing.names) if match]:
        folder, ending = batches[0]["folder"], batches[0]["bin"] or ""
        names = {int(match["number"]): match[0] for match in batches
                 if match["folder"] == folder and (match["bin"] or "") == ending}  # fmt: skip
        if missing := [n for n in range(1, max(names) + 1) if n not in names]:
            raise ValueError(
                f"{listing.path(f'{folder}data_batch_{missing[0]}{ending}')} is missing, and ids "
                "are counted over all batches; download it again"
            )
        splits = {"train": [names[number] for number in sorted(names)]}
        if listing.has(test := f"{folder}test_batch{ending}"):
            splits["test"] = [test]
        return _Files(splits, folder + ("batches.meta.txt" if ending else "batches.meta"), 1)
    for ending, meta in (("", "meta"), (".bin", "fine_label_names.txt")):
        for name in listing.names:
            folder, _, file = name.rpartition("/")
            folder = f"{folder}/" if folder else ""
            if file == f"train{ending}" and listing.has(folder + meta):
                splits = {split: [f"{folder}{split}{ending}"] for split in ("train", "test")
                          if listing.has(f"{folder}{split}{ending}")}  # fmt: skip
                return _Files(splits, folder + meta, 2)
    return None


def _classes(listing: Listing, name: str) -> tuple[str, ...] | None:
    if not listing.has(name):
        return None
    if name.endswith(".txt"):
        return tuple(listing.text(name).split())
    path = listing.path(name)
    about = _pickled(path)
    names = next((about[k] for k in (b"fine_label_names", b"label_names") if k in about), None)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{path} names no classes; download it again")
    return tuple(name.decode() for name in names)


def _draft(
    listing: Listing,
    names: list[str],
    files: _Files,
    classes: tuple[str, ...] | None,
    labels: str,
) -> Draft:
    paths = tuple(map(listing.path, names))
    batches = [_batch(path, files.label_bytes, storage.stamp(path)) for path in paths]
    counts = [len(batch.pixels) for batch in batches]
    total = sum(counts)
    given: list[int | None] = []
    for batch, count in zip(batches, counts, strict=True):
        given += [None] * count if batch.labels is None else batch.labels
    cells = np.column_stack(
        [
            np.repeat(np.arange(len(paths), dtype=np.int32), counts),
            np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        ]
    )
    width = max(5, len(str(total - 1)))
    return Draft(
        keys=[f"{i:0{width}d}" for i in range(total)],
        labels=given,
        images=CifarImages(paths, cells, files.label_bytes),
        origin=paths[0] if len(paths) == 1 else listing.root,
        classes=classes,
        opened=names,
        inside=total,
        # Both splits read the names of the classes: the file counts once.
        label_files=[files.classes] if names == files.splits["train"] and classes else [],
    )


@lru_cache(maxsize=2)
def _batch(path: str, label_bytes: int, stamp: str) -> _Batch:
    """A whole batch, as it is at one ``stamp``.

    Raises:
        ValueError: it is damaged.
    """
    if path.endswith(".bin"):
        record = label_bytes + _PIXELS
        values = np.frombuffer(storage.read(path), np.uint8)
        if len(values) == 0 or len(values) % record:
            raise ValueError(
                f"{path} has {len(values)} bytes, no multiple of {record}; download it again"
            )
        rows = values.reshape(-1, record)
        images = rows[:, label_bytes:].reshape(-1, 3, _SIDE, _SIDE)
        return _Batch(images, rows[:, label_bytes - 1].tolist())
    about = _pickled(path)
    data = about.get(b"data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.size % _PIXELS:
        raise ValueError(f"{path} holds no images of 3 x 32 x 32 bytes; download it again")
    pixels = data.reshape(-1, 3, _SIDE, _SIDE)
    labels = next((about[name] for name in _LABELS if name in about), None)
    if labels is not None and (not isinstance(labels, list) or len(labels) != len(pixels)):
        raise ValueError(f"{path} has labels that do not fit its images; download it again")
    return _Batch(pixels, None if labels is None else [int(label) for label in labels])


def _pickled(path: str) -> dict[bytes, object]:
    """The dictionary in a pickle, its names as bytes; nothing in it is run."""
    try:
        about = load_plain(storage.read(path))
    except ValueError as error:
        raise ValueError(f"{path} is no batch of CIFAR: {error}; download it again") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} is no batch of CIFAR; download it again")
    return {key.encode() if isinstance(key, str) else key: value for key, value in about.items()}
