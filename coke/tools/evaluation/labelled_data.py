"""The labelled images of an evaluation: a train and a test data set of the same classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.pipeline.remote.remote import location

TEST_SPLITS = ("test", "val", "valid", "validation")
_SHOWN = 5  # names in a message
#: How to go on with partly labelled data, in a command that has the option.
LABELLED_ONLY = (
    "evaluate on the others with --labelled-only, or ingest the data set with all labels"
)


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What an evaluation's result says about a data set that it used.

    Attributes:
        location: absolute path or URL.
        split: its folder's name in a folder of splits; None where it was named itself.
        identity: hash over keys and images.
        labels_sha256: hash over the labels of all ids and the names of the classes.
        images: that were used.
        unlabelled: images that were left out because they have no class label.
    """

    location: str
    split: str | None
    identity: str
    labels_sha256: str
    images: int
    unlabelled: int


@dataclass(frozen=True, kw_only=True)
class DataRecords:
    """The data sets of an evaluation."""

    train: DataRecord
    test: DataRecord


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Labelled data to learn a classifier on, and to test it on."""

    train: ImageIndex
    test: ImageIndex
    records: DataRecords

    @property
    def n_classes(self) -> int:
        return self.train.n_classes

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Which classes (C,) have training images."""
        found = np.zeros(self.n_classes, dtype=np.bool_)
        found[np.unique(live_labels(self.train))] = True
        return found

    @property
    def untrained(self) -> dict[str, int]:
        """Test images of each class that no training image has."""
        counts = np.bincount(live_labels(self.test), minlength=self.n_classes)
        counts[self.trained] = 0
        return {self.train.manifest.classes[c]: int(counts[c]) for c in np.flatnonzero(counts)}

    def train_alone(self) -> Splits:
        """The training data in both places, for evaluations that test nothing."""
        records = DataRecords(train=self.records.train, test=self.records.train)
        return Splits(train=self.train, test=self.train, records=records)

    @property
    def repeated(self) -> int:
        """Test images whose stored bytes are those of a training image."""
        return int(np.isin(_stored(self.test), _stored(self.train)).sum())


def open_splits(
    data: str | Path,
    test: str | Path | None,
    *,
    labelled_only: bool = False,
    remedy: str = LABELLED_ONLY,
    cache_dir: str | None = None,
    ids: Any = None,
) -> Splits:
    """The train and test data sets of an evaluation.

    Args:
        data: a folder with a train and a test data set, or a train data set with ``test``.
        test: the test data set; that of ``data`` when None.
        labelled_only: leave out images without a class label.
        remedy: what to do where some images have no label, for the message.
        cache_dir: where files of remote data sets are kept.
        ids: learn from these images of the train data set alone, see :meth:`ImageIndex.subset`.

    Raises:
        ValueError: no test data, ids that do not fit, unlabelled images, or classes that differ or
            are fewer than two.
    """
    train_place = find_split(data, ("train",))
    if test is None and train_place == location(data):
        raise ValueError(f"{data} is a single data set; name the test images with --test DATA")
    test_data = data if test is None else test
    test_place = find_split(test_data, TEST_SPLITS)
    train_all = ImageIndex(train_place, cache_dir=cache_dir)
    if ids is not None:
        train_all = train_all.subset(ids)
    test_all = ImageIndex(test_place, cache_dir=cache_dir)
    train_index = with_labels(train_all, labelled_only=labelled_only, remedy=remedy)
    test_index = with_labels(test_all, labelled_only=labelled_only, remedy=remedy)
    _check_classes(train_index, test_index)
    check_two_classes(train_index)
    return Splits(
        train=train_index,
        test=test_index,
        records=DataRecords(
            train=_record(train_all, train_index, train_place, data),
            test=_record(test_all, test_index, test_place, test_data),
        ),
    )


def open_one(
    data: str | Path,
    split: str | None,
    *,
    labelled_only: bool = False,
    remedy: str = LABELLED_ONLY,
    cache_dir: str | None = None,
    ids: Any = None,
) -> Splits:
    """One data set in both places, as :meth:`Splits.train_alone` has it.

    Args:
        data: a data set, or a folder of splits.
        split: the split to take from a folder of splits; ``train`` if None.
        ids: take these images alone.

    Raises:
        ValueError: no such data set, ids that do not fit it, unlabelled images, or a single class.
    """
    place = find_split(data, (split or "train",))
    if split is not None and place == location(data):
        raise ValueError(f"{data} is a single data set; leave out --split {split}")
    whole = ImageIndex(place, cache_dir=cache_dir)
    if ids is not None:
        whole = whole.subset(ids)
    index = with_labels(whole, labelled_only=labelled_only, remedy=remedy)
    check_two_classes(index)
    record = _record(whole, index, place, data)
    records = DataRecords(train=record, test=record)
    return Splits(train=index, test=index, records=records)


def with_labels(index: ImageIndex, *, labelled_only: bool, remedy: str) -> ImageIndex:
    """The data set itself; with ``labelled_only`` a view of its labelled images.

    Raises:
        ValueError: it has images without a class label, and the view was not asked for; or it has
            no others.
    """
    labels = live_labels(index)
    missing = int((labels < 0).sum())
    if missing == len(labels):
        raise ValueError(
            f"{index.folder}: none of its {len(labels):,} images has a class label (ingest a "
            "folder of class folders, or a table with labels)"
        )
    if missing and not labelled_only:
        raise ValueError(
            f"{index.folder}: {missing:,} of its {len(labels):,} images have no class label"
            + (f"; {remedy}" if remedy else "")
        )
    if missing == 0:
        return index
    return index.without(np.flatnonzero(index.labels < 0))


def _check_classes(train: ImageIndex, test: ImageIndex) -> None:
    """Raises ValueError, naming what differs, where a label means two classes."""
    ours, theirs = train.manifest.classes, test.manifest.classes
    if ours != theirs:
        differences = [
            f"only {index.folder} has {_names(only)}"
            for index, only in (
                (train, [name for name in ours if name not in set(theirs)]),
                (test, [name for name in theirs if name not in set(ours)]),
            )
            if only
        ]
        if not differences:
            label = next(
                i for i, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1
            )
            differences = [
                f"label {label} is {ours[label]!r} in one and {theirs[label]!r} in the other"
            ]
        raise ValueError(
            f"the classes of {train.folder} and {test.folder} differ: {'; '.join(differences)}. "
            "Ingest both together, as the folders train and test of one source: then a label "
            "means the same class in both"
        )


def check_two_classes(index: ImageIndex) -> None:
    """Raises ValueError where all images are of one class: any classifier is right there."""
    found = np.unique(live_labels(index))
    if len(found) < 2:
        raise ValueError(
            f"{index.folder}: all of its {index.n_live:,} labelled images are of the class "
            f"{index.manifest.classes[found[0]]!r}; a classifier needs at least two classes"
        )


def _names(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + rest


def _record(whole: ImageIndex, used: ImageIndex, place: str | Path, data: str | Path) -> DataRecord:
    meaning = hashlib.sha256(whole.labels.astype("<i8").tobytes())
    meaning.update(json.dumps(whole.manifest.classes).encode())
    return DataRecord(
        location=whole.location,
        split=None if place == location(data) else whole.location.rpartition("/")[2],
        identity=whole.identity,
        labels_sha256=meaning.hexdigest(),
        images=used.n_live,
        unlabelled=whole.n_live - used.n_live,
    )


def _stored(index: ImageIndex) -> NDArray[np.uint64]:
    """CRC-32 and length (n_live,) of the images in one number."""
    numbers = index.crc32.astype(np.uint64) << np.uint64(32)
    numbers += index.rows["length"].astype(np.uint64)
    return numbers if index.live_ids is None else numbers[index.live_ids]


def labels_of(index: ImageIndex, device: torch.device) -> Tensor:
    """Class labels (N,) int64 of the images, ids ascending."""
    return torch.from_numpy(np.ascontiguousarray(live_labels(index))).to(device)


def live_labels(index: ImageIndex) -> NDArray[np.int64]:
    """Class labels (n_live,) of the ids that have an image, -1 = none."""
    return index.labels if index.live_ids is None else index.labels[index.live_ids]


def rows_of(index: ImageIndex, ids_B: Tensor) -> Tensor:
    """The row that each id has among those of :func:`labels_of`; tombstones have none."""
    if index.live_ids is None:
        return ids_B
    return torch.from_numpy(np.searchsorted(index.live_ids, ids_B.numpy()))
