"""Points that centers may start at, with weights.

If all points are candidates, identical ones become one, and their order depends on the points
alone. A seed then gives the same centers however the points are ordered, shifted, turned or scaled.
It also gives the same centers for a point of weight 2 as for two points.

Shapes: N points, C candidates, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STEPS = 1 << 24  # parts of the mean squared distance to which such distances are rounded


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Different points (C, D), and their weights (C,) float64 >= 0, not all of them 0."""

    points: Tensor
    weights: Tensor

    def to(self, dtype: torch.dtype) -> Candidates:
        """The same points in another type."""
        return Candidates(points=self.points.to(dtype), weights=self.weights)

    @classmethod
    def sample(cls, points_CD: Tensor, weights_C: Tensor | None) -> Candidates:
        """Some of the points, in random order; each has a weight of 1 if None."""
        if weights_C is None or not bool(weights_C.any()):
            weights_C = torch.ones(len(points_CD), dtype=torch.float64)
        return cls(points=points_CD, weights=weights_C)

    @classmethod
    def all(cls, points_ND: Tensor, weights_N: Tensor | None) -> Candidates:
        """All points, in the order of their distance from the mean; points of weight 0 left out."""
        weights = np.ones(len(points_ND)) if weights_N is None else weights_N.numpy()
        rows = np.flatnonzero(weights)
        points_MD = points_ND.numpy()[rows]
        order = _order(points_MD, weights[rows])
        points_MD, weights = points_MD[order], weights[rows][order]
        first_M = np.ones(len(order), dtype=bool)
        first_M[1:] = (points_MD[1:] != points_MD[:-1]).any(axis=1)
        starts = np.flatnonzero(first_M)
        return cls(
            points=torch.from_numpy(points_MD[starts]),
            weights=torch.from_numpy(np.add.reduceat(weights, starts)),
        )


def _order(points_ND: NDArray[np.floating], weights_N: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows sorted by distance from the weighted mean; at the same distance, by their values."""
    mean_D = np.average(points_ND, axis=0, weights=weights_N)
    squares_N = np.square(points_ND - mean_D).sum(axis=1, dtype=np.float64)
    scale = float(np.average(squares_N, weights=weights_N)) or 1.0
    rounded_N = np.round(squares_N / scale * _STEPS)
    order = np.argsort(rounded_N, kind="stable")
    ends = np.flatnonzero(np.diff(rounded_N[order])) + 1
    for tied in np.split(order, ends) if len(ends) + 1 < len(order) else ():
        if len(tied) > 1:  # `tied` is a view of `order`
            tied[:] = tied[np.lexsort(points_ND[tied].T[::-1])]
    return order
