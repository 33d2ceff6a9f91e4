"""Assignments under bounds: by hand, and as good as a linear program's."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coke.clustering.shortest_paths import shortest_paths
from coke.clustering.sizes import SizeBounds
from coke.clustering.transport import Assigned, assigned, highest
from tests.clustering.exact import exact_optimum


def solved(
    values_KU: NDArray[Any], bounds: SizeBounds, amounts: list[int] | None = None
) -> Assigned:
    count = values_KU.shape[1]
    amounts_U = np.ones(count, dtype=np.int64) if amounts is None else np.array(amounts)
    return assigned(
        values_KU,
        amounts_U,
        np.zeros(len(values_KU)),
        bounds,
        rounding=1e-12,
    )


def test_shortest_paths_by_hand() -> None:
    inf = np.inf
    costs = np.array(
        [[inf, 4.0, 1.0, inf], [inf, inf, inf, inf], [inf, 2.0, inf, inf], [inf, 0.0, inf, inf]]
    )
    distances, before = shortest_paths(costs, np.array([True, False, False, False]))
    assert distances.tolist() == [0, 3, 1, inf]
    assert before.tolist() == [-1, 2, 0, -1]
    distances, before = shortest_paths(costs, np.array([True, False, False, True]))
    assert distances.tolist() == [0, 0, 1, 0] and before.tolist() == [-1, 3, 0, -1]


def test_a_chain_of_moves_is_cheaper_than_one() -> None:
    """Three clusters in a row, two points each; the first has three, the last one has one.

    To move a point of the first to the last costs 10; from each to its neighbour it costs 1.
    """
    values = np.array(
        [
            [0.0, 0, 0, -1, -1, -10],
            [-1.0, -1, -1, 0, 0, -1],
            [-10.0, -10, -10, -1, -1, 0],
        ]
    )
    found = solved(values, SizeBounds(lower=2, upper=2))
    assert found.complete and found.sizes.tolist() == [2, 2, 2]
    assert values[found.labels, found.rows].sum() == -2
    # The price of each step is 1: what a point more in the cluster is worth.
    assert np.diff(found.prices).tolist() == pytest.approx([1, 1])


def test_a_row_of_several_points_is_split() -> None:
    """Five identical points prefer the first of two clusters that hold three at most."""
    values = np.array([[1.0], [0.0]])
    found = solved(values, SizeBounds(lower=0, upper=3), amounts=[5])
    assert found.sizes.tolist() == [3, 2]
    pieces = zip(found.rows.tolist(), found.labels.tolist(), found.amounts.tolist(), strict=True)
    assert sorted(pieces) == [(0, 0, 3), (0, 1, 2)]
    assert found.prices.tolist() == pytest.approx([-1, 0], abs=1e-9)


def test_points_that_stay_count_towards_the_sizes() -> None:
    values = np.array([[1.0, 1.0], [0.0, 0.5]])
    found = assigned(
        values,
        np.ones(2, dtype=np.int64),
        np.zeros(2),
        SizeBounds(lower=0, upper=4),
        rounding=0,
        others_K=np.array([3, 1]),
    )
    assert found.labels.tolist() == [0, 1] and found.sizes.tolist() == [4, 2]


def test_bounds_that_no_row_can_meet_are_said_not_to_be_met() -> None:
    found = assigned(
        np.array([[1.0], [0.0]]),
        np.ones(1, dtype=np.int64),
        np.zeros(2),
        SizeBounds(lower=2, upper=4),
        rounding=0,
        others_K=np.array([2, 0]),
    )
    assert not found.complete and found.sizes.tolist() == [2, 1]


def test_the_highest_of_each_row() -> None:
    values = np.array([[1.0, 0, 2], [0, 1, 2]])
    assert highest(values, np.zeros(2)).tolist() == [0, 1, 0]
    assert highest(values, np.array([0, 1.5])).tolist() == [1, 1, 1]
    many = np.random.default_rng(0).normal(size=(7, 10_000))
    assert np.array_equal(highest(many, np.arange(7.0)), (many.T + np.arange(7)).argmax(axis=1))


def points(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    n = int(rng.integers(20, 200))
    if kind == "whole numbers":
        return rng.integers(0, 3, size=(n, 3)).astype(float)
    if kind == "heavy tails":
        return rng.standard_t(1.0, size=(n, 3))
    if kind == "identical rows":
        return rng.normal(size=(max(n // 10, 1), 3))[rng.integers(0, max(n // 10, 1), n)]
    return rng.normal(size=(n, 3))


KINDS = ("normal", "whole numbers", "heavy tails", "identical rows")


@pytest.mark.parametrize(("kind", "seed"), list(product(KINDS, range(6))))
def test_it_agrees_with_a_linear_program(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = points(kind, rng)
    n, k = len(x), int(rng.integers(2, 10))
    centers = x[rng.permutation(n)[:k]]
    values = (x @ centers.T - 0.5 * (centers**2).sum(axis=1)).T.copy()
    lower = int(rng.integers(0, n // k + 1))
    upper = math.inf if seed % 2 else float(-(-n // k) + int(rng.integers(0, 4)))
    bounds = SizeBounds(lower=lower, upper=upper)
    found = solved(values, bounds)
    sizes = np.bincount(found.labels, found.amounts, minlength=k)
    assert found.complete and found.sizes.tolist() == sizes.tolist()
    assert sizes.min() >= lower and sizes.max() <= upper
    reached = values[found.labels, found.rows] @ found.amounts
    best = exact_optimum(values.T, lower, upper)
    size = np.abs(values).sum()
    assert reached == pytest.approx(best, abs=1e-9 * size)
    # The prices prove it: their bound is the optimum.
    priced = (values + found.prices[:, None]).max(axis=0).sum()
    paid = lower * found.prices.clip(min=0).sum()
    if not math.isinf(upper):
        paid += upper * found.prices.clip(max=0).sum()
    assert priced - paid == pytest.approx(best, abs=1e-9 * size)


@pytest.mark.parametrize("kind", ["whole numbers", "identical rows"])
def test_rows_with_amounts_are_as_good_as_points_one_by_one(kind: str) -> None:
    rng = np.random.default_rng(7)
    x = points(kind, rng)
    distinct, amounts = np.unique(x, axis=0, return_counts=True)
    centers = x[rng.permutation(len(x))[:6]]
    bounds = SizeBounds(lower=len(x) // 6 - 1, upper=len(x) // 6 + 2)

    def reached(rows: NDArray[np.float64], amounts: list[int] | None) -> float:
        values = (rows @ centers.T - 0.5 * (centers**2).sum(axis=1)).T.copy()
        found = solved(values, bounds, amounts)
        assert found.complete and found.amounts.sum() == len(x)
        return float(values[found.labels, found.rows] @ found.amounts)

    assert reached(distinct, amounts.tolist()) == pytest.approx(reached(x, None), abs=1e-9)
