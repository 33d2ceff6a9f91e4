"""One fit of constrained k-means, from where the centers start to sizes that hold.

Shapes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coke.clustering.distinct_rows import DistinctRows
from coke.clustering.lloyd import Lloyd
from coke.clustering.online import Online
from coke.clustering.points import Points
from coke.clustering.sizes import SizeBounds

_IN_MEMORY = 4_000_000  # similarities (16 MB) that are kept, so that steps need no products


_ROUNDING = 1e-11  # of the points' squared distances from their mean: a shortfall below is none
_SOME = 1000  # points that tell whether many are identical
_MOSTLY = 0.8  # share of distinct ones among them from which it is not worth a look at all


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of one start, in the coordinates of the points.

    Attributes:
        centers (K, D), duals (K,), labels (N,), sizes (K,): of the assignment that keeps the sizes.
        squared_distances: sum over the points, to the own center.
        shortfall: how far the sum of similarities may be from the best at these centers, at most.
        passes: over the points.
    """

    centers: Tensor
    duals: Tensor
    labels: Tensor
    sizes: Tensor
    squared_distances: float
    shortfall: float
    passes: int


def fit_once(
    points: Points,
    centers_KD: Tensor,
    bounds: SizeBounds,
    *,
    max_iter: int,
    tol: float,
    batch_size: int,
    generator: torch.Generator,
    advance: Callable[[], None],
    settle: int = 0,
) -> Fit:
    """Moves centers and assigns points, in turns, until the centers stand still.

    Args:
        centers_KD: where the centers start, in the coordinates of the points.
        tol: the centers stand still when their squared moves add up to no more than this share of
            the variance of a feature.
        generator: of the order of the points.
        advance: called after each pass.
        settle: passes before the last in which centers stand still, for prices of a stream; points
            in memory need none.
    """
    k = len(centers_KD)
    clustering: Lloyd | Online
    rows = _few_rows(points, k)
    if rows is not None:  # similarities stay in memory, and every assignment is the best there is
        clustering = Lloyd(points, rows, centers_KD, bounds)
    else:
        clustering = Online(points, centers_KD, bounds, batch_size, _IN_MEMORY, generator)
    passes, moved = 0, math.inf
    while passes < max_iter and moved > tol * points.variance:
        before_KD = clustering.centers_KD.clone()
        clustering.run()
        advance()
        moved = float((clustering.centers_KD - before_KD).square().sum(dtype=torch.float64))
        passes += 1
    if isinstance(clustering, Online):
        for _ in range(settle):
            clustering.settle()
    end = clustering.finished()
    rounding = _ROUNDING * points.n * points.d * points.variance
    return Fit(
        centers=clustering.centers_KD,
        duals=end.duals,
        labels=end.labels,
        sizes=end.sizes,
        squared_distances=end.squared_distances,
        # Distances are not negative: no assignment is better than all points at their centers.
        shortfall=min(end.shortfall, end.squared_distances / 2)
        if end.shortfall > rounding
        else 0.0,
        passes=passes,
    )


def _few_rows(points: Points, k: int) -> DistinctRows | None:
    """The distinct rows, if there are few enough to keep their similarities in memory."""
    if points.n * max(k, points.d if points.on_disk else 0) <= _IN_MEMORY:
        return DistinctRows.of(points.whole(), points.weights)
    if points.on_disk:
        return None
    some = np.unique(np.linspace(0, points.n - 1, _SOME).astype(np.int64))
    if len(DistinctRows.of(points.read(some), None).amounts) > _MOSTLY * len(some):
        return None
    rows = DistinctRows.of(points.whole(), points.weights)
    # A stream is faster, where it may be used: only few rows are worth the exact way.
    return rows if len(rows.amounts) * k <= _IN_MEMORY // 8 else None
