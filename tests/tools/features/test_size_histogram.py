"""The picture of cluster sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coke.clustering.sizes import SizeBounds
from coke.tools.features.size_histogram import bins_of, size_histogram

BAR, BOUND = (31, 119, 180), (214, 39, 40)


def pixels(image: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """(row, column) of all pixels of about this colour: edges are smooth."""
    apart = np.abs(np.asarray(image).astype(np.int64) - np.array(colour)).max(axis=2)
    found = np.argwhere(apart < 70)
    return found[(found[:, 0] > 120) & (found[:, 0] < 466)]  # of the plot, not of texts around it


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [
        ([5, 5, 6, 9], SizeBounds(lower=5)),
        ([7], SizeBounds(lower=7, upper=7)),
        ([0, 1, 100_000], SizeBounds(lower=0)),
        (list(range(200, 1200)), SizeBounds(lower=200, upper=1300)),
    ],
)
def test_every_cluster_is_in_one_bin(sizes: list[int], bounds: SizeBounds) -> None:
    edges, counts = bins_of(np.array(sizes), bounds)
    assert counts.sum() == len(sizes)
    assert len(edges) == len(counts) + 1 <= 60
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(left < size < right for size in sizes)
    if bounds.lower > 0:
        assert bounds.lower - 0.5 in edges, "no bar reaches across the bound"
    if not math.isinf(bounds.upper):
        assert edges[0] < bounds.upper < edges[-1]


def test_by_hand() -> None:
    edges, counts = bins_of(np.array([5, 5, 6, 9]), SizeBounds(lower=5))
    assert edges.tolist() == [3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5]
    assert counts.tolist() == [0, 2, 1, 0, 0, 1, 0]


def test_bars_stand_between_the_lines_of_the_bounds() -> None:
    image = size_histogram(np.array([20, 24, 24, 31]), SizeBounds(lower=20, upper=35))
    assert image.size == (960, 540)
    bars, lines = pixels(image, BAR), pixels(image, BOUND)
    columns = np.unique(lines[:, 1])
    left, right = columns[columns < 480], columns[columns > 480]
    assert len(left) and len(right)
    assert left.max() <= bars[:, 1].min() + 1 and bars[:, 1].max() <= right.min()
    # Two clusters of size 24: twice as high as one of 20. Right to left is 31, 24, 20.
    heights = np.bincount(bars[:, 1], minlength=960)
    tops = [int(heights[column]) for column in _middles(bars[:, 1])]
    assert len(tops) == 3
    assert tops[1] == pytest.approx(2 * tops[0], abs=3) and tops[2] == tops[0]


def _middles(columns: NDArray[np.int64]) -> list[int]:
    """The middle column of each bar."""
    found = np.unique(columns)
    runs = np.split(found, np.flatnonzero(np.diff(found) > 2) + 1)
    return [int(run[len(run) // 2]) for run in runs]


def test_without_bounds_there_are_no_lines() -> None:
    image = size_histogram(np.array([3, 4, 5]), SizeBounds(lower=0))
    assert not len(pixels(image, BOUND)) and len(pixels(image, BAR))
    far = size_histogram(np.array([3, 4, 5]), SizeBounds(lower=0, upper=1_000_000))
    assert not len(pixels(far, BOUND)), "a bound far away would squeeze the bars"
    assert np.unique(pixels(far, BAR)[:, 1]).size == np.unique(pixels(image, BAR)[:, 1]).size
