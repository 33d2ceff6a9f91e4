"""Sizes made to fit by moving points, by hand and beside the best assignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from coke.clustering.repair import repair
from coke.clustering.sizes import SizeBounds
from tests.clustering.exact import exact_optimum


def repaired(
    values_NK: Tensor, labels: list[int], bounds: SizeBounds, *, chunk: int = 3
) -> tuple[list[int], list[int]]:
    labels_N = torch.tensor(labels)
    sizes_K = torch.bincount(labels_N, minlength=values_NK.shape[1])
    repair(
        labels_N,
        sizes_K,
        torch.zeros(values_NK.shape[1]),
        bounds,
        lambda: (
            ((first, values_NK[first : first + chunk]) for first in range(0, 99, chunk))
            if len(values_NK) == 99
            else [(0, values_NK)]
        ),
        lambda rows_M: values_NK[rows_M],
        values_NK.numel(),
    )
    assert sizes_K.tolist() == torch.bincount(labels_N, minlength=len(sizes_K)).tolist()
    return labels_N.tolist(), sizes_K.tolist()


def test_the_point_that_loses_least_fills_a_short_cluster() -> None:
    values = torch.tensor([[1.0, 0.0], [1.0, 0.8], [1.0, 0.5]])
    assert repaired(values, [0, 0, 0], SizeBounds(lower=1)) == ([0, 1, 0], [2, 1])


def test_the_point_that_loses_least_leaves_a_large_cluster() -> None:
    values = torch.tensor([[1.0, 0.0], [1.0, 0.8], [1.0, 0.5]])
    assert repaired(values, [0, 0, 0], SizeBounds(lower=0, upper=2)) == ([0, 1, 0], [2, 1])


def test_sizes_that_hold_are_left_alone() -> None:
    values = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert repaired(values, [0, 1], SizeBounds(lower=1)) == ([0, 1], [1, 1])


def test_identical_points_fill_all_clusters() -> None:
    """Equal costs: every cluster would ask for the same points if they were not told apart."""
    values = torch.zeros(99, 9)
    _, sizes = repaired(values, [0] * 99, SizeBounds(lower=11, upper=11))
    assert sizes == [11] * 9


@pytest.mark.parametrize("upper", [math.inf, 14.0])
def test_it_is_near_the_best_assignment(upper: float) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(99, 9))).float()
    bounds = SizeBounds(lower=9, upper=upper)
    labels, sizes = repaired(values, values.argmax(dim=1).tolist(), bounds)
    assert min(sizes) >= 9 and max(sizes) <= upper
    reached = float(values[torch.arange(99), torch.tensor(labels)].sum())
    best = exact_optimum(values.double().numpy(), 9, upper)
    assert best - 0.02 * abs(best) <= reached <= best + 1e-3
