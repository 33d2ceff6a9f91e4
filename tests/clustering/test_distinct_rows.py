"""Identical rows as one, with how many they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coke.clustering import distinct_rows
from coke.clustering.distinct_rows import DistinctRows


def test_by_hand() -> None:
    points = torch.tensor([[1.0, 2], [0, -0.0], [1, 2], [3, 4], [-0.0, 0]])
    rows = DistinctRows.of(points, None)
    assert rows.points.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert rows.amounts.tolist() == [2, 2, 1] and rows.row_of.tolist() == [0, 1, 0, 2, 1]
    # Row 1 is split between clusters 0 and 2: its first point gets the first piece.
    labels = rows.labels(np.array([0, 1, 2, 1]), np.array([5, 0, 6, 2]), np.array([2, 1, 1, 1]))
    assert labels.tolist() == [5, 0, 5, 6, 2]


def test_different_rows_are_left_as_they_are() -> None:
    points = torch.randn(50, 3)
    rows = DistinctRows.of(points, None)
    assert rows.points is points and rows.amounts.tolist() == [1] * 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("collide", [False, True])
def test_it_agrees_with_numpy(
    dtype: torch.dtype, collide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if collide:  # all keys are equal, so rows are compared in full
        monkeypatch.setattr(distinct_rows, "_MIXER", np.uint64(0))
    x = np.random.default_rng(0).integers(0, 3, size=(3000, 4)).astype(np.float64) / 3
    points = torch.from_numpy(x).to(dtype)
    rows = DistinctRows.of(points, None)
    assert torch.equal(rows.points[torch.from_numpy(rows.row_of)], points)
    assert len(rows.points) == 81 and rows.amounts.sum() == 3000
    assert rows.amounts.tolist() == np.bincount(rows.row_of).tolist()
