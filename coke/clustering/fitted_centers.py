"""Centers and duals after a fit, and how other points compare with them.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.assignment import best_columns
from coke.clustering.coordinates import Coordinates
from coke.clustering.distances import distances, own_losses
from coke.clustering.point_array import PointArray
from coke.clustering.points import Points
from coke.clustering.similarities import fineness, needs_differences, needs_float64, similarities

_SMALL = 1_000_000  # similarities up to which float64 costs next to nothing


@dataclass(frozen=True, kw_only=True)
class FittedCenters:
    """Centers and duals after a fit, in the user's coordinates.

    Attributes:
        centers: (K, D) float64.
        duals: (K,) float64.
        metric: ``"cosine"`` or ``"euclidean"``.
        batch_size: points that are compared with the centers at a time.
    """

    centers: NDArray[np.float64]
    duals: NDArray[np.float64]
    metric: str
    batch_size: int

    def labels(self, given: PointArray) -> NDArray[np.int64]:
        """The cluster (N,) of the highest similarity plus dual."""
        return torch.cat([labels_B for _, labels_B in self._labelled(given)]).numpy()

    def distances(self, given: PointArray) -> NDArray[Any]:
        """Distances (N, K) to the centers: Euclidean, or 1 minus the cosine.

        They are float32 for points in float32 or float16, otherwise float64.
        """
        centers_KD = torch.from_numpy(self.centers)
        kept = given.array.dtype in (np.float16, np.float32)
        parts = [
            distances(batch_BD, centers_KD, self.metric).numpy()
            for _, batch_BD in self._as_given(given).batches(self.batch_size)
        ]
        return np.concatenate(parts, dtype=np.float32 if kept else np.float64, casting="same_kind")

    def inertia(self, given: PointArray, weights_N: Tensor | None) -> float:
        """Weighted sum of squared distances to the centers that :meth:`labels` chooses.

        Under cosine, it is the weighted sum of 1 minus the cosine.
        """
        centers_KD, points = torch.from_numpy(self.centers), self._as_given(given)
        total = 0.0
        for rows, labels_B in self._labelled(given):
            losses_B = own_losses(points.read(rows), centers_KD[labels_B], self.metric)
            total += float(losses_B.sum() if weights_N is None else losses_B @ weights_N[rows])
        return total

    def _labelled(self, given: PointArray) -> Iterator[tuple[slice, Tensor]]:
        """Batches of rows, and their labels (B,)."""
        coordinates = Coordinates.around(self.centers)
        points = Points(given.array, self.metric, coordinates)
        centers_KD = torch.from_numpy(coordinates.into(self.centers))
        fine = fineness(centers_KD, len(centers_KD))
        small = points.n * len(self.centers) <= _SMALL
        if points.exact is np.float64 or small or needs_float64(fine):
            points.dtype = torch.float64
        centers_KD, direct = centers_KD.to(points.dtype), needs_differences(fine)
        duals_K = torch.from_numpy(self.duals / coordinates.scale**2).to(points.dtype)
        for rows, batch_BD in points.batches(self.batch_size):
            yield (
                rows,
                best_columns(similarities(batch_BD, centers_KD, direct=direct).add_(duals_K)),
            )

    def _as_given(self, given: PointArray) -> Points:
        """Points in float64, in the user's coordinates."""
        points = Points(given.array, self.metric, Coordinates.plain(given.array.shape[1]))
        points.dtype = torch.float64
        return points
