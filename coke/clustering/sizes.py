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


def ratio_bounds(n: float, n_clusters: int, min_ratio: float, max_ratio: float) -> SizeBounds:
    """Bounds as shares of N / K, the size that all clusters would have if they were equal.

    Args:
        n: number of points N; 1 for sizes that are shares of all points.
        min_ratio: in [0, 1].
        max_ratio: 1 or more; 0 for no upper bound.
    """
    return SizeBounds(
        lower=min_ratio * n / n_clusters,
        upper=max_ratio * n / n_clusters if max_ratio else math.inf,
    )


def size_bounds(
    n_points: int,
    n_clusters: int,
    *,
    min_ratio: float | None,
    max_ratio: float | None = None,
    min_size: int | None,
    max_size: int | None,
) -> SizeBounds:
    """Whole-number bounds from what a user gave.

    Args:
        min_ratio, max_ratio: smallest and largest size as shares of N / K; ignored with
            ``min_size`` and ``max_size``.

    Raises:
        ValueError: no assignment of the points can have such sizes.
    """
    if min_size is not None:
        lower = min_size
    else:
        # Equal sizes of points that do not divide evenly: some clusters must have one more.
        lower = math.floor((min_ratio or 0.0) * n_points / n_clusters + 1e-9)
    if max_size is None and max_ratio is not None and max_ratio < math.inf:
        # Rounded down, some clusters could be too small for all points to find a place.
        max_size = max(
            math.floor(max_ratio * n_points / n_clusters + 1e-9), -(-n_points // n_clusters), lower
        )
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


def typical_difference(similarities_BK: Tensor) -> float:
    """The standard deviation of a typical point's similarities to the centers.

    From medians, so that neither a few far points nor a few far centers decide.
    """
    if similarities_BK.shape[1] < 2:
        return 1.0
    middle_B1 = similarities_BK.median(dim=1, keepdim=True).values
    typical = 1.4826 * (similarities_BK - middle_B1).abs_().median(dim=1).values.median()
    if typical > 0:
        return float(typical)
    return float(similarities_BK.std(dim=1).mean()) or 1.0


def refine_duals(
    similarities_KU: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    *,
    steps: int,
    settled: float,
    reaches: Sequence[float] = (1.0,),
    amounts_U: Tensor | None = None,
) -> tuple[Tensor, bool]:
    """Duals (K,) that lower the bound: subgradient descent, the step shrinking, best one kept.

    Each step reads the whole matrix, which lies cluster by cluster: the best value of every row
    is then ten times as fast to find as in rows of a few clusters. Steps are normalised per cluster
    (a share of its size) and scaled to how far similarities of a point are apart, so nothing needs
    tuning. With several ``reaches``, ``steps`` are taken at each of these scales, from the best
    duals so far.

    Args:
        settled: duals are good that leave this share of the typical difference, per point.
        amounts_U: (U,) int64, points in each row; one by default.

    Returns: the duals, and whether they are good.
    """
    k, rows = similarities_KU.shape
    some_BK = similarities_KU[:, :: max(rows // _SPREAD_POINTS, 1)].T
    spread = typical_difference(some_BK)
    extra_U, extra = _extra(amounts_U)
    n = rows + int(extra.sum())
    scale = max(n / k, 1.0)
    priced_KU = torch.empty_like(similarities_KU)
    best_KU = torch.empty_like(similarities_KU, dtype=torch.bool)
    extra = extra.to(duals_K.dtype)
    best_K, best = duals_K, math.inf
    for reach in reaches:
        duals_K, velocity_K = best_K.clone(), torch.zeros_like(best_K)
        furthest = 2 * reach * spread
        for step in range(steps):
            torch.add(similarities_KU, duals_K.unsqueeze(1), out=priced_KU)
            values_U = priced_KU.amax(dim=0)
            value = float(values_U.sum(dtype=torch.float64)) - bounds.price(duals_K)
            sizes_K = torch.eq(priced_KU, values_U, out=best_KU).sum(dim=1).to(duals_K.dtype)
            if len(extra):
                value += float((values_U[extra_U] * extra).sum(dtype=torch.float64))
                sizes_K += best_KU[:, extra_U].to(duals_K.dtype) @ extra
            if value < best:
                best_K, best = duals_K.clone(), value
            if bounds.slack(duals_K, sizes_K, spread) <= settled * spread * n:
                return duals_K, True
            wanted_K = bounds.step(duals_K, sizes_K, reach * spread / scale) - duals_K
            velocity_K = 0.7 * velocity_K + 0.3 * wanted_K.clamp(-furthest, furthest)
            duals_K = duals_K + (1 - step / steps) ** 1.5 * velocity_K
            if math.isinf(bounds.upper):
                duals_K.clamp_(min=0)
    return best_K, False


def _extra(amounts_U: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of several points, and how many more than one each of them has."""
    if amounts_U is None:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    rows = (amounts_U > 1).nonzero().flatten()
    return rows, amounts_U[rows] - 1
