"""Bounds on cluster sizes, and the duals that are their prices.

An assignment of N points to K clusters maximises the sum of similarities s(i, k) while every
cluster holds at least ``lower`` and at most ``upper`` points. Its Lagrangian dual (Sec. 3.2)

    bound(q) = sum_i max_k (s(i, k) + q_k) - lower * sum(q+) + upper * sum(q-)

is at least the sum of similarities of any assignment that keeps the sizes, for any q; q+ and q- are
the positive and negative parts of the duals. A dual is positive where points must be drawn into a
cluster, negative where they must be kept out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SPREAD_POINTS = 200  # of all, that tell how far similarities are apart


@dataclass(frozen=True, kw_only=True)
class SizeBounds:
    """Sizes that every cluster must have: ``lower <= size <= upper``; ``upper`` may be infinite.

    Floats: a share of N / K need not be whole.
    """

    lower: float
    upper: float = math.inf

    def step(self, duals_K: Tensor, sizes_K: Tensor, rate: float) -> Tensor:
        """Duals (K,) after one subgradient step that saw clusters of these sizes.

        A dual that would change its sign stops at zero, where no bound binds.
        """
        drawn_K = duals_K - rate * (sizes_K - self.lower)
        if math.isinf(self.upper):
            return drawn_K.clamp_(min=0)
        if self.lower == self.upper:  # an equality, whose duals take any sign
            return drawn_K
        kept_out_K = duals_K - rate * (sizes_K - self.upper)
        return torch.where(drawn_K > 0, drawn_K, kept_out_K.clamp_(max=0))

    def price(self, duals_K: Tensor) -> float:
        """What the bound subtracts: lower * sum(q+) - upper * sum(q-)."""
        positive = self.lower * float(duals_K.clamp(min=0).sum())
        negative = float(duals_K.clamp(max=0).sum())
        return positive + (self.upper * negative if negative < 0 else 0.0)

    def slack(self, duals_K: Tensor, sizes_K: Tensor, price: float) -> float:
        """How far an assignment at these duals is from the best one that keeps the sizes, at most,
        if each point that a cluster misses or must give away costs ``price``; 0 is the best one.

        A price that is paid must be paid for a bound that binds (complementary slackness).
        """
        paid_K = duals_K.clamp(min=0) * (sizes_K - self.lower).clamp(min=0)
        broken_K = (self.lower - sizes_K).clamp(min=0)
        if not math.isinf(self.upper):
            paid_K = paid_K - duals_K.clamp(max=0) * (self.upper - sizes_K).clamp(min=0)
            broken_K = broken_K + (sizes_K - self.upper).clamp(min=0)
        return float((paid_K + price * broken_K).sum())

    def violation(self, sizes_K: Tensor) -> float:
        """Largest excess or shortfall, as a share of the bound that it breaks."""
        worst = 0.0
        if self.lower > 0:
            worst = max(worst, (self.lower - float(sizes_K.min())) / self.lower)
        if not math.isinf(self.upper):
            worst = max(worst, (float(sizes_K.max()) - self.upper) / self.upper)
        return worst


def size_bounds(
    n_points: int,
    n_clusters: int,
    *,
    min_ratio: float | None,
    min_size: int | None,
    max_size: int | None,
) -> SizeBounds:
    """Whole-number bounds from what a user gave.

    Args:
        min_ratio: smallest size as a share of N / K; ignored with ``min_size``.

    Raises:
        ValueError: no assignment of the points can have such sizes.
    """
    if min_size is not None:
        lower = min_size
    else:
        # Equal sizes of points that do not divide evenly: some clusters must have one more.
        lower = math.floor((min_ratio or 0.0) * n_points / n_clusters + 1e-9)
    if lower * n_clusters > n_points:
        raise ValueError(
            f"min_size is {lower}: {n_clusters} clusters of that size need {lower * n_clusters} "
            f"points, there are {n_points}; use min_size <= {n_points // n_clusters}"
        )
    if max_size is not None and max_size * n_clusters < n_points:
        raise ValueError(
            f"max_size is {max_size}: {n_clusters} clusters of that size hold "
            f"{max_size * n_clusters} points, there are {n_points}; use max_size >= "
            f"{-(-n_points // n_clusters)}"
        )
    if max_size is not None and max_size < lower:
        raise ValueError(f"max_size is {max_size}, below the smallest allowed size {lower}")
    return SizeBounds(lower=lower, upper=math.inf if max_size is None else max_size)


def refine_duals(
    similarities_KN: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    *,
    steps: int,
    settled: float,
    reaches: Sequence[float] = (1.0,),
) -> Tensor:
    """Duals (K,) that lower the bound: subgradient descent, the step shrinking, best one kept.

    Each step reads the whole matrix, which lies cluster by cluster: the best value of every point
    is then ten times as fast to find as in rows of a few clusters. Steps are normalised per cluster
    (a share of its size) and scaled to how far similarities of a point are apart, so nothing needs
    tuning. With several ``reaches``, ``steps`` are taken at each of these scales, from the best
    duals so far.

    Args:
        settled: duals are good that leave this share of the spread of similarities, per point.
    """
    k, n = similarities_KN.shape
    some_KN = similarities_KN[:, :: max(n // _SPREAD_POINTS, 1)]
    spread = float(some_KN.std(dim=0).mean()) if k > 1 else 1.0
    scale = max(n / k, 1.0)
    priced_KN = torch.empty_like(similarities_KN)
    best_KN = torch.empty_like(similarities_KN, dtype=torch.bool)
    best_K, best = duals_K, math.inf
    for reach in reaches:
        duals_K, velocity_K = best_K.clone(), torch.zeros_like(best_K)
        furthest = 2 * reach * spread
        for step in range(steps):
            torch.add(similarities_KN, duals_K.unsqueeze(1), out=priced_KN)
            values_N = priced_KN.amax(dim=0)
            value = float(values_N.sum(dtype=torch.float64)) - bounds.price(duals_K)
            if value < best:
                best_K, best = duals_K.clone(), value
            sizes_K = torch.eq(priced_KN, values_N, out=best_KN).sum(dim=1).to(duals_K.dtype)
            if bounds.slack(duals_K, sizes_K, spread) <= settled * spread * n:
                return duals_K
            wanted_K = bounds.step(duals_K, sizes_K, reach * spread / scale) - duals_K
            velocity_K = 0.7 * velocity_K + 0.3 * wanted_K.clamp(-furthest, furthest)
            duals_K = duals_K + (1 - step / steps) ** 1.5 * velocity_K
            if math.isinf(bounds.upper):
                duals_K.clamp_(min=0)
    return best_K
