"""Points in coordinates around their median, by hand and whatever their size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from coke.clustering.coordinates import Coordinates
from coke.clustering.points import Points, means, unit_rows


def test_coordinates_by_hand() -> None:
    at = Coordinates(origin=np.array([10.0, 20]), scale=4)
    assert at.into(np.array([[14.0, 12]])).tolist() == [[1, -2]]
    assert at.back(np.array([[1.0, -2]])).tolist() == [[14, 12]]
    around = Coordinates.around(np.array([[0.0, 0], [5, 0], [1e9, 0]]))
    assert around.origin.tolist() == [5, 0] and around.scale == 2.0**30
    assert Coordinates.around(np.array([[3.0, 3]])).scale == 1


def test_points_are_read_around_their_median() -> None:
    x = np.array([[1e8 + 8, 2], [1e8, 2], [1e8 + 4, 2]])
    points = Points(x, "euclidean")
    assert points.coordinates.origin.tolist() == [1e8 + 4, 2] and points.coordinates.scale == 4
    assert points.read(slice(0, 3)).tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert points.whole().tolist() == points.read(np.array([0, 1, 2])).tolist()
    # The variance of a feature, and the squared norms in the user's coordinates.
    assert points.variance == pytest.approx((32 / 3 / 16) / 2)
    assert points.squares == pytest.approx(float((x**2).sum()))
    assert x[1, 0] == 1e8, "what was given is not changed"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_small_types_are_calculated_with_in_float32(dtype: Any) -> None:
    points = Points(np.array([[1, 2], [3, 4]], dtype=dtype), "euclidean")
    assert points.exact is (np.float64 if np.dtype(dtype).itemsize == 8 else np.float32)
    assert points.read(slice(0, 2)).dtype == torch.float32
    assert points.read(slice(0, 2)).tolist() == [[-1, -1], [0, 0]]


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-8, 1.0, 1e22, 3e38])
def test_directions_of_any_norm(size: float) -> None:
    unit = unit_rows(np.array([[3.0, 4.0], [0.6, -0.8]]) * size)
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.6, -0.8]], rtol=1e-12)
    if 1e-38 < size < 1e38:
        rows = (np.array([[3.0, 4.0], [1, 0]]) * size).astype(np.float32)
        np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [1.0, 0.0]], rtol=1e-6)


def test_directions_that_are_nearly_alike_are_told_apart() -> None:
    x = np.array([[1.0, 0, 1e-9], [1.0, 0, -1e-9], [2.0, 0, 4e-9], [2.0, 0, -4e-9]])
    points = Points(x, "cosine")
    assert not points.coordinates.is_plain
    third = points.coordinates.back(points.whole().numpy())[:, 2]
    assert third.tolist() == pytest.approx([1e-9, -1e-9, 2e-9, -2e-9], rel=1e-6)


def test_means_by_hand() -> None:
    plain = Coordinates.plain(2)
    sums, before = torch.tensor([[4.0, 2], [0, 0]]), torch.tensor([[9.0, 9], [7, 7]])
    counts = torch.tensor([2, 0])
    assert means(sums, counts, before, "euclidean", plain).tolist() == [[2, 1], [7, 7]]
    at = Coordinates(origin=np.array([1.0, 0]), scale=2)
    # (2, 1) is (5, 2) to the user; its direction, seen from the origin, in units of 2.
    norm = 29**0.5
    found = means(sums, counts, before, "cosine", at)[0].tolist()
    assert found == pytest.approx([(5 / norm - 1) / 2, 2 / norm / 2])


def test_values_whose_squares_are_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="too large for squared distances in float64; scale"):
        Points(np.array([[1e200], [-1e200]]), "euclidean")
