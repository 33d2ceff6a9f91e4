"""Subsets of labelled images, chosen by id: a few of each class, and a part that is held out.

Whether an image is chosen depends on the seed, its id, and the labels; on nothing else. So a subset
is the same for every format, machine and version.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.randomness import key_of, mix
from coke.tools.evaluation.labelled_data import live_labels

Ids = NDArray[np.int64]

#: Keys of the random numbers of each purpose: none shares them.
_CHOICE, _REMAINDER, _HELD_OUT = 0x5B5E7, 0x5B5E8, 0x5B5E9


def live_ids(index: ImageIndex) -> Ids:
    """Ids (n_live,) that have an image, ascending."""
    return np.arange(len(index)) if index.live_ids is None else index.live_ids


def only(index: ImageIndex, ids: Ids) -> ImageIndex:
    """A view of the data set in which only these ids (M,) have an image."""
    return index.without(np.setdiff1d(live_ids(index), ids))


def class_balanced(index: ImageIndex, fraction: float, seed: int) -> Ids:
    """As many images of each class, ``fraction`` of all images together; ids (M,) ascending.

    M is ``fraction`` times the number of images, rounded down. Where M is no multiple of the number
    of classes, some classes have one image more. A class with fewer images than its share gives
    all; the other classes make up for it. With one seed, a smaller subset is part of a larger one.

    The subsets of SimCLR (Chen et al., ICML 2020, Section 6) are of this kind: 1 % of ImageNet
    is 12 or 13 images of each class.

    Args:
        index: labelled images.
        fraction: more than 0, at most 1.

    Raises:
        ValueError: ``fraction`` is out of range, or leaves a class without an image.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; give a share of the training images, 0 < f <= 1")
    ids, labels = live_ids(index), live_labels(index)
    assert labels.min() >= 0, "unlabelled images are refused or left out before"
    classes, counts = np.unique(labels, return_counts=True)
    total = _part(fraction, len(ids))
    if total < len(classes):
        raise ValueError(
            f"fraction {fraction:g} of the {len(ids):,} training images of {index.folder} is "
            f"{total:,} {'image' if total == 1 else 'images'} for {len(classes):,} classes, so a "
            "class would have none; the smallest fraction that works is "
            f"{_smallest_fraction(len(ids), len(classes))}"
        )
    first = mix(key_of(_REMAINDER, seed) ^ mix(classes.astype(np.uint64))).argsort()
    shares = _shares(counts, total, first)
    order, ranks = _ranked(ids, labels, key_of(_CHOICE, seed))
    chosen = ranks < shares[np.searchsorted(classes, labels[order])]
    return np.sort(ids[order[chosen]])


def held_out(index: ImageIndex, share: float, seed: int) -> Ids:
    """A part of each class, to choose settings on; ids (M,) ascending.

    Of n images of a class, ``share`` n are held out, rounded; at least one and at most n - 1, and
    none of a class with a single image.
    """
    ids, labels = live_ids(index), live_labels(index)
    classes, counts = np.unique(labels, return_counts=True)
    shares = np.clip(np.round(share * counts), 1, counts - 1).astype(np.int64)
    order, ranks = _ranked(ids, labels, key_of(_HELD_OUT, seed))
    chosen = ranks < shares[np.searchsorted(classes, labels[order])]
    return np.sort(ids[order[chosen]])


def folds(index: ImageIndex, count: int, seed: int) -> NDArray[np.int64]:
    """The fold 0..``count`` - 1 of each image (n_live,), ids ascending.

    Each class is dealt out over all folds evenly, and the next class goes on where it ended, so
    that folds are of equal size up to one image.
    """
    ids, labels = live_ids(index), live_labels(index)
    order, _ = _ranked(ids, labels, key_of(_HELD_OUT, seed))
    found = np.empty(len(ids), dtype=np.int64)
    found[order] = np.arange(len(ids)) % count
    return found


def _ranked(
    ids: Ids, labels: NDArray[np.int64], key: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (N,) by class and within a class at random, and the rank of each within its class."""
    order = np.lexsort((mix(key ^ mix(ids.astype(np.uint64))), labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return order, np.arange(len(ids)) - np.repeat(starts, counts)


def _shares(counts: NDArray[np.int64], total: int, first: NDArray[np.int64]) -> Ids:
    """How many images (C,) each class gives: equally many, unless it has fewer.

    ``first`` orders the classes by who gives one more where the total is no multiple.
    """
    level, above = 0, int(counts.max()) + 1
    while above - level > 1:
        middle = (level + above) // 2
        if np.minimum(counts, middle).sum() <= total:
            level = middle
        else:
            above = middle
    shares = np.minimum(counts, level)
    larger = first[counts[first] > level]
    shares[larger[: total - shares.sum()]] += 1
    return shares


def _part(fraction: float, images: int) -> int:
    """``fraction`` of the images, rounded down; 0.29 of 100 are 29, whatever the last bit says."""
    return int(fraction * images * (1 + 1e-12))


def _smallest_fraction(images: int, classes: int) -> float:
    """The smallest fraction of three digits that is one image for each class."""
    share = classes / images
    found = float(f"{share:.2e}")
    if _part(found, images) < classes:  # it was rounded down
        found = float(f"{found + 10 ** (math.floor(math.log10(share)) - 2):.2e}")
    return min(found, 1.0)
