"""Passes over a stream: points keep their sizes, centers move after every batch (Alg. 1).

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.ending import Ending
from coke.clustering.points import Points, means
from coke.clustering.polish import GOOD, Polish
from coke.clustering.repair import repair
from coke.clustering.sample_weights import pull
from coke.clustering.similarities import narrowed, similarities, squared_distances
from coke.clustering.sizes import SizeBounds, typical_difference
from coke.clustering.stream import CARRY, Stream
from coke.clustering.streaming_assignment import GAIN
from coke.clustering.sweeps_in_numpy import sweeps_in_numpy

_SOME = 256  # points that tell how far similarities are apart


class Online:
    """Any number of points, read in batches."""

    def __init__(
        self,
        points: Points,
        centers_KD: Tensor,
        bounds: SizeBounds,
        batch_size: int,
        in_memory: int,
        generator: torch.Generator,
    ) -> None:
        """
        Args:
            in_memory: similarities that may be kept.
        """
        k = len(centers_KD)
        self.points, self.bounds, self.batch_size = points, bounds, batch_size
        self.in_memory, self.generator = in_memory, generator
        self.centers_KD = centers_KD.to(points.dtype, copy=True)
        self.duals_K, self.sizes_K = torch.zeros(2, k).unbind()
        self.weights_K = torch.zeros(k, dtype=points.dtype)
        self.labels_N = torch.full((points.n,), -1, dtype=torch.int64)
        self.stream = Stream.of(bounds, points.n, k)

    def run(self) -> None:
        """One pass in random order."""
        self.weights_K *= CARRY
        step = self._dual_step()
        for rows, batch_BD in self.points.batches(self.batch_size, self.generator):
            labels_B = self._assign(self._similarities(batch_BD, rows), rows, step)
            sums_KD = self.centers_KD * self.weights_K.unsqueeze(1)
            weights_B = self._weights(rows)
            if weights_B is not None:
                batch_BD = batch_BD.mul_(weights_B.unsqueeze(1))
            sums_KD.index_add_(0, labels_B, batch_BD)
            self.weights_K += torch.bincount(labels_B, weights_B, minlength=len(self.weights_K))
            self.centers_KD = means(
                sums_KD,
                self.weights_K,
                self.centers_KD,
                self.points.metric,
                self.points.coordinates,
            )

    def settle(self) -> None:
        """One pass in random order, in which only duals and labels move."""
        step = self._dual_step()
        for rows, batch_BD in self.points.batches(self.batch_size, self.generator):
            self._assign(self._similarities(batch_BD, rows), rows, step)

    def finished(self) -> Ending:
        """The points assigned once more, to the centers as they are."""
        before_K = self.duals_K.clone()  # the bound asks for the same duals for all points
        step, distances, shortfall = self._dual_step(), 0.0, 0.0
        for rows, batch_BD in self.points.batches(self.batch_size):
            values_BK = self._similarities(batch_BD, rows)
            labels_B = self._assign(values_BK, rows, step)
            distances += self._squared_distances(batch_BD, labels_B, rows)
            values_BK.add_(before_K)
            own_B = values_BK.gather(1, labels_B.unsqueeze(1))[:, 0]
            shortfall += float(values_BK.amax(dim=1).sub_(own_B).sum(dtype=torch.float64))
        sizes_K = torch.bincount(self.labels_N, minlength=len(before_K))
        before_N = self.labels_N.clone()
        repair(
            self.labels_N,
            sizes_K,
            self.duals_K,
            self.bounds,
            self._chunks,
            lambda rows_M: self._similarities(self.points.read(rows_M.numpy()), rows_M.numpy()),
            self.in_memory,
        )
        moved = (before_N != self.labels_N).nonzero().flatten()
        for rows in moved.split(self.batch_size):
            batch_BD = self.points.read(rows.numpy())
            was = self._squared_distances(batch_BD, before_N[rows], rows.numpy())
            now = self._squared_distances(batch_BD, self.labels_N[rows], rows.numpy())
            distances += now - was
            left = (before_K[before_N[rows]] - before_K[self.labels_N[rows]]).double().sum()
            shortfall += (now - was) / 2 + float(left)
        shortfall += self.bounds.slack(before_K.double(), sizes_K, price=0.0)
        ending = Ending(
            duals=self.duals_K,
            labels=self.labels_N,
            sizes=sizes_K,
            squared_distances=distances,
            shortfall=shortfall,
        )
        if 2 * shortfall <= GOOD * distances:
            return ending
        polish = Polish(
            self.points,
            self.centers_KD,
            self.bounds,
            self._similarities,
            self._squared_distances,
            batch_size=self.batch_size,
            in_memory=self.in_memory,
            generator=self.generator,
        )
        return polish.better(ending)

    def _dual_step(self) -> float:
        """How far a point moves its cluster's dual."""
        n, k = self.points.n, len(self.centers_KD)
        some = np.unique(np.linspace(0, n - 1, _SOME).astype(np.int64))
        values_BK = self._similarities(self.points.read(some), some)
        return float(GAIN * typical_difference(values_BK) * k / n)

    def _similarities(self, batch_BD: Tensor, rows: slice | NDArray[np.int64]) -> Tensor:
        """(B, K) float32, of each point as much as it weighs."""
        values_BK = narrowed(similarities(batch_BD, self.centers_KD, direct=self.points.direct))
        weights_B = self._weights(rows)
        return values_BK if weights_B is None else values_BK.mul_(pull(weights_B).unsqueeze(1))

    def _weights(self, rows: slice | NDArray[np.int64]) -> Tensor | None:
        """(B,) in the type of the points; None if all points weigh the same."""
        weights_N = self.points.weights
        return None if weights_N is None else weights_N[rows].to(self.points.dtype)

    def _assign(self, values_BK: Tensor, rows: slice | NDArray[np.int64], step: float) -> Tensor:
        labels, duals, sizes = sweeps_in_numpy(
            values_BK.numpy(),
            self.labels_N[rows].numpy(),
            self.duals_K.numpy(),
            self.sizes_K.numpy(),
            self.stream,
            step,
        )
        labels_B, self.duals_K = torch.from_numpy(labels), torch.from_numpy(duals)
        self.sizes_K, self.labels_N[rows] = torch.from_numpy(sizes), labels_B
        return labels_B

    def _squared_distances(
        self, batch_BD: Tensor, labels_B: Tensor, rows: slice | NDArray[np.int64]
    ) -> float:
        distances_B = squared_distances(batch_BD, self.centers_KD[labels_B])
        weights_N = self.points.weights
        return float(distances_B.sum() if weights_N is None else distances_B @ weights_N[rows])

    def _chunks(self) -> Iterator[tuple[int, Tensor]]:
        """First rows and similarities (B, K) of all points, in order."""
        chunk = max(self.batch_size, self.in_memory // max(self.centers_KD.shape))
        for rows, batch_BD in self.points.batches(chunk):
            yield rows.start, self._similarities(batch_BD, rows)
