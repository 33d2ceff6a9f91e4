"""Identical rows as one row with a number of points.

Shapes: N points, U distinct rows, P pieces of rows, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: all its bits count
_CHUNK = 1 << 10  # rows whose bits stay in a cache


@dataclass(frozen=True, kw_only=True)
class DistinctRows:
    """The different rows among points.

    Attributes:
        points: (U, D), in the order in which they first appear.
        weights: (U,) float64 weight of each point of a row; None if all points weigh the same.
        amounts: (U,) int64, how many points each of them is.
        row_of: (N,) int64, the distinct row of each point.
    """

    points: Tensor
    weights: Tensor | None
    amounts: NDArray[np.int64]
    row_of: NDArray[np.int64]

    @classmethod
    def of(cls, points_ND: Tensor, weights_N: Tensor | None) -> DistinctRows:
        """The rows that differ in points or weights; the same tensors if all of them do."""
        keyed_NE = points_ND
        if weights_N is not None:
            keyed_NE = torch.cat([points_ND.double(), weights_N.unsqueeze(1)], dim=1)
        keys_N = _keys(keyed_NE)
        _, first_U, row_of_N, amounts_U = np.unique(
            keys_N, return_index=True, return_inverse=True, return_counts=True
        )
        if len(first_U) == len(points_ND):
            every = np.arange(len(points_ND))
            return cls(
                points=points_ND, weights=weights_N, amounts=np.ones_like(every), row_of=every
            )
        order_U = np.argsort(first_U)
        place_U = np.empty_like(order_U)
        place_U[order_U] = np.arange(len(order_U))
        first = torch.from_numpy(first_U[order_U])
        return cls(
            points=points_ND[first],
            weights=None if weights_N is None else weights_N[first],
            amounts=amounts_U[order_U],
            row_of=place_U[row_of_N],
        )

    def labels(
        self, rows_P: NDArray[np.int64], labels_P: NDArray[np.int64], amounts_P: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Labels (N,) of the points, from those of pieces of the distinct rows."""
        if len(rows_P) == len(self.amounts):
            labels_U = np.empty_like(labels_P)
            labels_U[rows_P] = labels_P
            return labels_U[self.row_of]
        pieces = np.argsort(rows_P, kind="stable")
        labels_N = np.empty_like(self.row_of)
        labels_N[np.argsort(self.row_of, kind="stable")] = np.repeat(
            labels_P[pieces], amounts_P[pieces]
        )
        return labels_N


def _keys(points_ND: Tensor) -> NDArray[np.uint64]:
    """A key (N,) for each row: the same for identical rows, and for no others.

    A sum of the row's bits, mixed, times random odd numbers finds likely ones; a row that shares
    its key with a different one makes all rows be compared in full.
    """
    n = len(points_ND)
    points = (points_ND + 0.0).numpy()  # of -0.0 and 0.0, which are equal, only 0.0 is left
    bits_NW = points.view(np.uint32)
    factors_W = np.random.default_rng(0).integers(2**63, size=bits_NW.shape[1], dtype=np.uint64)
    keys_N = np.empty(n, dtype=np.uint64)
    for first in range(0, n, _CHUNK):
        mixed_MW = bits_NW[first : first + _CHUNK] * _MIXER
        mixed_MW ^= mixed_MW >> np.uint64(32)
        keys_N[first : first + _CHUNK] = mixed_MW @ (2 * factors_W + 1)
    _, first_U, row_of_N = np.unique(keys_N, return_index=True, return_inverse=True)
    if len(first_U) < n and not np.array_equal(points[first_U[row_of_N]], points):
        _, row_of_N = np.unique(points, axis=0, return_inverse=True)
        return row_of_N.astype(np.uint64).reshape(n)
    return keys_N
