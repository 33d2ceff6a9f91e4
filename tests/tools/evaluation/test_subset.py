"""Subsets by id: how many images of each class, and which."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coke.tools.evaluation.subset import class_balanced, folds, held_out, only
from tests.support.labelled_index import labelled_index


def per_class(labels: list[int], ids: list[int]) -> list[int]:
    found: list[int] = np.bincount(np.array(labels)[ids], minlength=max(labels) + 1).tolist()
    return found


#: 10 images: 5 of class 0, 3 of class 1, 2 of class 2, mixed.
TEN = [0, 1, 0, 2, 0, 1, 0, 2, 0, 1]


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [
        (0.3, [[1, 1, 1]]),
        (0.4, [[2, 1, 1], [1, 2, 1], [1, 1, 2]]),  # the seed says which class has one more
        (0.6, [[2, 2, 2]]),
        (0.7, [[3, 2, 2], [2, 3, 2]]),  # class 2 has no third image
        (0.8, [[3, 3, 2]]),
        (0.9, [[4, 3, 2]]),  # classes 1 and 2 have given all: class 0 makes up for it
        (1.0, [[5, 3, 2]]),
    ],
)
def test_classes_share_evenly_and_a_small_class_gives_all(
    fraction: float, counts: list[list[int]]
) -> None:
    found = []
    for seed in range(20):
        ids = class_balanced(labelled_index(TEN), fraction, seed).tolist()
        assert ids == sorted(set(ids)) and len(ids) == round(10 * fraction)
        found.append(per_class(TEN, ids))
    assert sorted(map(tuple, counts)) == sorted({tuple(c) for c in found})


def test_one_percent_of_imagenet_is_as_many_images_as_simclrs() -> None:
    """12,811 of 1,281,167 images: 12 of each class, and one more of 811."""
    labels = np.arange(1_281_167) % 1000
    ids = class_balanced(labelled_index(labels), 0.01, 0)
    counts = np.bincount(labels[ids]).tolist()
    assert sum(counts) == 12_811 and sorted(set(counts)) == [12, 13] and counts.count(13) == 811


def test_a_smaller_subset_is_part_of_a_larger_one_and_seeds_differ() -> None:
    labels = (np.arange(1000) % 7).tolist()
    index = labelled_index(labels)
    chosen = [set(class_balanced(index, f, 3).tolist()) for f in (0.01, 0.02, 0.05, 0.3, 1.0)]
    for smaller, larger in itertools.pairwise(chosen):
        assert smaller < larger
    others = [frozenset(class_balanced(index, 0.02, seed).tolist()) for seed in range(5)]
    assert len(set(others)) == 5


def test_which_images_is_pinned() -> None:
    """Results of one version are those of another only if the images stay the same."""
    labels = (np.arange(100) % 5).tolist()
    found = class_balanced(labelled_index(labels), 0.1, 0)
    assert found.tolist() == [6, 10, 14, 23, 49, 52, 57, 85, 86, 88]


def test_an_image_that_is_gone_changes_nothing_but_its_own_place() -> None:
    labels = (np.arange(200) % 4).tolist()
    before = class_balanced(labelled_index(labels), 0.1, 0)
    without = labelled_index(labels).without(before[:1])
    after = class_balanced(without, 20.5 / 199, 0)
    assert set(before[1:].tolist()) < set(after.tolist()) and len(after) == 20


def test_29_of_100_are_29() -> None:
    """0.29 * 100 is 28.999999999999996."""
    assert len(class_balanced(labelled_index([0, 1] * 50), 0.29, 0)) == 29


@pytest.mark.parametrize(
    ("images", "classes", "fraction", "smallest"),
    [(50, 10, 0.1, "0.2"), (30, 10, 0.3, "0.334"), (1000, 3, 0.0001, "0.003")],
)
def test_a_class_without_an_image_is_refused_and_the_fraction_named_works(
    images: int, classes: int, fraction: float, smallest: str
) -> None:
    labels = (np.arange(images) % classes).tolist()
    index = labelled_index(labels)
    with pytest.raises(ValueError, match=rf"the smallest fraction that works is {smallest}$"):
        class_balanced(index, fraction, 0)
    assert len(class_balanced(index, float(smallest), 0)) >= classes


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction is {fraction}; give a share"):
        class_balanced(labelled_index(TEN), fraction, 0)


def test_a_part_of_each_class_is_held_out() -> None:
    labels = [0] * 20 + [1] * 10 + [2] * 2 + [3]
    index = labelled_index(labels)
    held = held_out(index, 0.2, 0).tolist()
    # A fifth of 20 and of 10; one of the two; none of the single one.
    assert per_class(labels, held) == [4, 2, 1, 0]
    assert held_out(index, 0.2, 1).tolist() != held
    rest = index.without(np.array(held))
    assert rest.n_live == 26 and only(rest, np.array([0, 32])).n_live <= 2


def test_folds_are_equal_and_hold_each_class_evenly() -> None:
    labels = [0] * 11 + [1] * 7
    found = folds(labelled_index(labels), 5, 0)
    assert sorted(np.bincount(found).tolist()) == [3, 3, 4, 4, 4]
    for label in (0, 1):
        counts = np.bincount(found[np.array(labels) == label], minlength=5)
        assert counts.max() - counts.min() <= 1
