"""One fit of constrained k-means, from where the centers start to sizes that hold.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from coke.clustering.assignment import assign_in_sweeps
from coke.clustering.points import Points, means, similarities
from coke.clustering.repair import repair
from coke.clustering.sizes import SizeBounds, refine_duals

_IN_MEMORY = 4_000_000  # similarities (16 MB) that are kept, so that steps need no products
_REFINING_STEPS = 40  # of each pass
_LAST_REACHES = (1.0, 0.3, 0.1, 0.03)
_CHUNK = 4_000_000  # similarities that are computed at a time in the last passes
_ENOUGH = 200  # points per cluster of a sample that tells good duals
STEP = 8.0  # of the duals in the first pass: times the spread of similarities, times K / N


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What one start led to.

    Attributes:
        centers (K, D), duals (K,), labels (N,), sizes (K,): of the assignment that keeps the sizes.
        objective: sum of similarities; ``bound``: what it cannot exceed at these centers.
        squares: sum of the points' squared norms, which turns similarities back into distances.
        passes: over the points.
    """

    centers: Tensor
    duals: Tensor
    labels: Tensor
    sizes: Tensor
    objective: float
    bound: float
    squares: float
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
) -> Fit:
    """Streams the points past the centers, then makes the sizes fit.

    Args:
        centers_KD: where the centers start.
        generator: of the order of the points.
        advance: called after each pass.
    """
    k, metric = len(centers_KD), points.metric
    duals_K = torch.zeros(k)
    # Small: similarities stay in memory, and every pass can find good duals and repair.
    whole_ND = points.read(slice(0, points.n)) if points.n * k <= _IN_MEMORY else None
    for number in range(max_iter):
        before_KD = centers_KD
        if whole_ND is not None:
            centers_KD, duals_K = _pass_in_memory(whole_ND, centers_KD, duals_K, bounds, metric)
        else:
            centers_KD, duals_K = _pass_online(
                points, centers_KD, duals_K, bounds, batch_size, number, generator
            )
        advance()
        moved = float((centers_KD - before_KD).square().sum() / centers_KD.square().sum())
        if moved < tol**2:
            break
    chunk = min(points.n, max(batch_size, _CHUNK // k))
    sampled_ND = whole_ND
    if sampled_ND is None and _IN_MEMORY // k >= _ENOUGH * k:
        sampled_ND = points.sample(_IN_MEMORY // k, generator)
    if sampled_ND is not None:
        duals_K = refine_duals(
            similarities(sampled_ND, centers_KD, metric),
            duals_K,
            bounds.scaled(len(sampled_ND) / points.n),
            steps=2 * _REFINING_STEPS,
            reaches=_LAST_REACHES,
        )
    labels_N, sizes_K, bound = _assigned(points, centers_KD, duals_K, chunk)
    bound -= bounds.price(duals_K)

    def priced() -> Iterable[tuple[int, Tensor]]:
        for rows, batch_BD in points.batches(chunk):
            yield rows.start, similarities(batch_BD, centers_KD, metric) + duals_K

    repair(labels_N, sizes_K, bounds, priced)
    return Fit(
        centers=centers_KD,
        duals=duals_K,
        labels=labels_N,
        sizes=sizes_K,
        objective=_objective(points, centers_KD, labels_N, chunk),
        squares=_total_squares(points, chunk),
        bound=bound,
        passes=number + 1,
    )


def _pass_in_memory(
    points_ND: Tensor, centers_KD: Tensor, duals_K: Tensor, bounds: SizeBounds, metric: str
) -> tuple[Tensor, Tensor]:
    """One step of Lloyd's algorithm under the bounds; new centers and duals."""
    values_NK = similarities(points_ND, centers_KD, metric)
    duals_K = refine_duals(values_NK, duals_K, bounds, steps=_REFINING_STEPS)
    values_NK += duals_K
    labels_N = values_NK.argmax(dim=1)
    sizes_K = torch.bincount(labels_N, minlength=len(centers_KD))
    repair(labels_N, sizes_K, bounds, lambda: [(0, values_NK)])
    sums_KD = torch.zeros_like(centers_KD).index_add_(0, labels_N, points_ND)
    return means(sums_KD, sizes_K, centers_KD, metric), duals_K


def _pass_online(
    points: Points,
    centers_KD: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    batch_size: int,
    number: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One pass over a stream; new centers, and the mean of the duals along the pass."""
    k = len(centers_KD)
    sums_KD, sizes_K = torch.zeros_like(centers_KD), torch.zeros(k, dtype=torch.int64)
    mean_K = torch.zeros(k)
    shares = bounds.scaled(1 / points.n)
    sweep = min(batch_size, max(8, points.n // 4096))
    spread = 0.0
    for _, batch_BD in points.batches(batch_size, generator):
        values_BK = similarities(batch_BD, centers_KD, points.metric)
        spread = spread or spread_of(values_BK)
        rate = STEP / (1 + number) * spread * k / points.n
        labels_B, duals_K = assign_in_sweeps(values_BK, duals_K, shares, rate=rate, sweep=sweep)
        sums_KD.index_add_(0, labels_B, batch_BD)
        sizes_K += torch.bincount(labels_B, minlength=k)
        mean_K += duals_K * (len(batch_BD) / points.n)
    return means(sums_KD, sizes_K, centers_KD, points.metric), mean_K


def _assigned(
    points: Points, centers_KD: Tensor, duals_K: Tensor, chunk: int
) -> tuple[Tensor, Tensor, float]:
    """Labels (N,) at fixed duals, sizes (K,), and the sum of the best priced similarities."""
    labels_N = torch.empty(points.n, dtype=torch.int64)
    total = 0.0
    for rows, batch_BD in points.batches(chunk):
        values_BK = similarities(batch_BD, centers_KD, points.metric).add_(duals_K)
        best_B, labels_N[rows] = values_BK.max(dim=1)
        total += float(best_B.sum(dtype=torch.float64))
    return labels_N, torch.bincount(labels_N, minlength=len(centers_KD)), total


def _objective(points: Points, centers_KD: Tensor, labels_N: Tensor, chunk: int) -> float:
    """Sum of the similarities of all points to their centers."""
    total = 0.0
    for rows, batch_BD in points.batches(chunk):
        own_BD = centers_KD[labels_N[rows]]
        total += float((batch_BD * own_BD).sum(dtype=torch.float64))
        if points.metric == "euclidean":
            total -= 0.5 * float(own_BD.square().sum(dtype=torch.float64))
    return total


def _total_squares(points: Points, chunk: int) -> float:
    """Sum of squared norms, which turns similarities back into distances."""
    if points.metric == "cosine":
        return float(points.n)
    return sum(float(b.square().sum(dtype=torch.float64)) for _, b in points.batches(chunk))


def spread_of(values_BK: Tensor) -> float:
    """How far the similarities of a point to the centers are apart, typically."""
    if values_BK.shape[1] < 2:
        return 1.0
    return max(float(values_BK.std(dim=1).mean()), math.ulp(1.0))
