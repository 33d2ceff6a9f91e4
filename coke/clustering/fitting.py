"""One fit of constrained k-means, from where the centers start to sizes that hold.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.assignment import best_columns
from coke.clustering.points import (
    Points,
    means,
    own_similarities,
    similarities,
    similarities_by_cluster,
)
from coke.clustering.repair import Moved, repair
from coke.clustering.sizes import SizeBounds, refine_duals
from coke.clustering.stream import CARRY, Stream
from coke.clustering.streaming_assignment import assign_stream

_IN_MEMORY = 4_000_000  # similarities (16 MB) that are kept, so that steps need no products
_STEPS, _SETTLED = 40, 1e-3  # refinement of the duals in each pass
_LAST_STEPS, _LAST_SETTLED = 80, 1e-5  # and after the last
_LAST_REACHES = (1.0, 0.3, 0.1, 0.03)


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
    # Small: similarities stay in memory, and every pass can find good duals and repair.
    small = points.n * max(len(centers_KD), points.d if points.on_disk else 0) <= _IN_MEMORY
    kind = _InMemory if small else _Online
    clustering = kind(points, centers_KD, bounds, batch_size, generator)
    passes, moved = 0, math.inf
    while passes < max_iter and moved > tol**2:
        before_KD = clustering.centers_KD.clone()
        clustering.run()
        advance()
        after_KD = clustering.centers_KD
        moved = float((after_KD - before_KD).square().sum() / after_KD.square().sum())
        passes += 1
    return clustering.finished(passes)


class _InMemory:
    """Passes that are steps of Lloyd's algorithm under the bounds."""

    def __init__(
        self,
        points: Points,
        centers_KD: Tensor,
        bounds: SizeBounds,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.points, self.bounds, self.centers_KD = points, bounds, centers_KD
        self.points_ND = points.read(slice(0, points.n))
        self.duals_K = torch.zeros(len(centers_KD))

    def run(self) -> None:
        """One step."""
        labels_N, sizes_K = self._assigned(self._similarities(), steps=_STEPS, settled=_SETTLED)
        sums_KD = torch.zeros_like(self.centers_KD).index_add_(0, labels_N, self.points_ND)
        self.centers_KD = means(sums_KD, sizes_K, self.centers_KD, self.points.metric)

    def finished(self, passes: int) -> Fit:
        """The points assigned to the centers as they are."""
        values_KN = self._similarities()
        labels_N, sizes_K = self._assigned(
            values_KN, steps=_LAST_STEPS, settled=_LAST_SETTLED, reaches=_LAST_REACHES
        )
        priced_KN = values_KN + self.duals_K.unsqueeze(1)
        bound = float(priced_KN.amax(dim=0).sum(dtype=torch.float64))
        return Fit(
            centers=self.centers_KD,
            duals=self.duals_K,
            labels=labels_N,
            sizes=sizes_K,
            objective=_chosen(values_KN.T, labels_N),
            bound=bound - self.bounds.price(self.duals_K),
            squares=_squares(self.points_ND, self.points.metric),
            passes=passes,
        )

    def _similarities(self) -> Tensor:
        return similarities_by_cluster(self.points_ND, self.centers_KD, self.points.metric)

    def _assigned(
        self,
        values_KN: Tensor,
        *,
        steps: int,
        settled: float,
        reaches: tuple[float, ...] = (1.0,),
    ) -> tuple[Tensor, Tensor]:
        """Labels (N,) and sizes (K,) that keep the bounds."""
        self.duals_K = refine_duals(
            values_KN, self.duals_K, self.bounds, steps=steps, settled=settled, reaches=reaches
        )
        priced_NK = (values_KN + self.duals_K.unsqueeze(1)).T
        labels_N = best_columns(priced_NK)
        sizes_K = torch.bincount(labels_N, minlength=len(self.duals_K))
        repair(labels_N, sizes_K, self.bounds, lambda: [(0, priced_NK)])
        return labels_N, sizes_K


class _Online:
    """Passes over a stream: labels keep their sizes, centers move after every batch (Alg. 1)."""

    def __init__(
        self,
        points: Points,
        centers_KD: Tensor,
        bounds: SizeBounds,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        k = len(centers_KD)
        self.points, self.bounds, self.batch_size = points, bounds, batch_size
        self.centers_KD, self.generator = centers_KD.clone(), generator
        self.duals_K, self.sizes_K, self.weights_K = torch.zeros(3, k).unbind()
        self.labels_N = torch.full((points.n,), -1, dtype=torch.int64)
        self.stream = Stream.of(bounds, points.n, k)

    def run(self) -> None:
        """One pass in random order."""
        self.weights_K *= CARRY
        for rows, batch_BD in self.points.batches(self.batch_size, self.generator):
            labels_B = self._assign(self._similarities(batch_BD), rows)
            sums_KD = self.centers_KD * self.weights_K.unsqueeze(1)
            sums_KD.index_add_(0, labels_B, batch_BD)
            self.weights_K += torch.bincount(labels_B, minlength=len(self.weights_K))
            self.centers_KD = means(sums_KD, self.weights_K, self.centers_KD, self.points.metric)

    def finished(self, passes: int) -> Fit:
        """The points assigned once more, to the centers as they are."""
        before_K = self.duals_K.clone()  # the bound asks for the same duals for all points
        bound, objective, squares = -self.bounds.price(before_K), 0.0, 0.0
        for rows, batch_BD in self.points.batches(self.batch_size):
            values_BK = self._similarities(batch_BD)
            labels_B = self._assign(values_BK, rows)
            objective += _chosen(values_BK, labels_B)
            squares += _squares(batch_BD, self.points.metric)
            bound += float((values_BK + before_K).amax(dim=1).sum(dtype=torch.float64))
        sizes_K = torch.bincount(self.labels_N, minlength=len(before_K))
        for moved in repair(self.labels_N, sizes_K, self.bounds, self._priced):
            objective += self._won(moved)
        return Fit(
            centers=self.centers_KD,
            duals=self.duals_K,
            labels=self.labels_N,
            sizes=sizes_K,
            objective=objective,
            bound=bound,
            squares=squares,
            passes=passes,
        )

    def _similarities(self, batch_BD: Tensor) -> Tensor:
        return similarities(batch_BD, self.centers_KD, self.points.metric)

    def _assign(self, values_BK: Tensor, rows: slice | NDArray[np.int64]) -> Tensor:
        labels_B, self.duals_K, self.sizes_K = assign_stream(
            values_BK, self.labels_N[rows], self.duals_K, self.sizes_K, self.stream
        )
        self.labels_N[rows] = labels_B
        return labels_B

    def _won(self, moved: Moved) -> float:
        """Similarity won by what was moved; a negative number where it was near its center."""
        won = 0.0
        parts = zip(
            *(t.split(self.batch_size) for t in (moved.points, moved.sources, moved.targets)),
            strict=True,
        )
        for points_B, sources_B, targets_B in parts:
            batch_BD = self.points.read(points_B.numpy())
            for clusters_B, sign in ((targets_B, 1), (sources_B, -1)):
                own_B = own_similarities(batch_BD, self.centers_KD[clusters_B], self.points.metric)
                won += sign * float(own_B.sum(dtype=torch.float64))
        return won

    def _priced(self) -> Iterable[tuple[int, Tensor]]:
        chunk = max(self.batch_size, _IN_MEMORY // max(self.centers_KD.shape))
        for rows, batch_BD in self.points.batches(chunk):
            yield rows.start, self._similarities(batch_BD).add_(self.duals_K)


def _chosen(values_BK: Tensor, labels_B: Tensor) -> float:
    """Sum of the similarities to the own centers."""
    return float(values_BK.gather(1, labels_B.unsqueeze(1)).sum(dtype=torch.float64))


def _squares(points_BD: Tensor, metric: str) -> float:
    """Sum of squared norms, which turns similarities back into distances."""
    if metric == "cosine":
        return float(len(points_BD))
    return float(points_BD.square().sum(dtype=torch.float64))
