"""Points of a stand-alone clustering: read in batches, from memory or from disk, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.stacked_rows import StackedRows

METRICS = ("cosine", "euclidean")
_RUN = 64  # rows of a file that are read together: single rows would cost a seek each


class Points:
    """N points of D dimensions; batches are float32, of unit norm for the cosine metric.

    Args:
        array: (N, D) real numbers, as :func:`~coke.clustering.point_array.point_array` gives them.
        metric: ``"cosine"`` or ``"euclidean"``.
    """

    def __init__(self, array: NDArray[Any] | StackedRows, metric: str) -> None:
        self._array = array
        self.metric = metric
        self.n, self.d = self._array.shape
        self.on_disk = isinstance(self._array, np.memmap | StackedRows)

    def read(self, rows: slice | NDArray[np.int64]) -> Tensor:
        """Points (B, D) of these rows.

        Raises:
            ValueError: a value is not finite, or a vector without direction under cosine.
        """
        values_BD = np.require(self._array[rows], np.float32, ["C", "W"])
        points_BD = torch.from_numpy(values_BD)
        # A sum is finite only where all its values are; it needs no memory, unlike a closer look.
        if not bool(points_BD.sum().isfinite()) and not bool(torch.isfinite(points_BD).all()):
            bad = int((~torch.isfinite(points_BD)).any(dim=1).nonzero()[0])
            raise ValueError(
                f"Input X contains NaN, infinity or a value too large for float32, in row "
                f"{_row(rows, bad)}; remove such rows first"
            )
        if self.metric == "euclidean":
            return points_BD
        norms_B1: Tensor = torch.linalg.vector_norm(points_BD, dim=1, keepdim=True)
        if bool((norms_B1 == 0).any()):
            bad = int((norms_B1[:, 0] == 0).nonzero()[0])
            raise ValueError(
                f"row {_row(rows, bad)} is a zero vector, which has no direction; remove it, or "
                'use metric="euclidean"'
            )
        if isinstance(self._array, StackedRows) or not np.may_share_memory(values_BD, self._array):
            return points_BD.div_(norms_B1)  # a copy, of rows on disk for example: ours to change
        return points_BD / norms_B1

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Any]:
        """(rows, points (B, D)) of all points, each once: in order, or shuffled.

        Points on disk are shuffled in runs of 64 rows.
        """
        if generator is None:
            for start in range(0, self.n, size):
                rows = slice(start, min(start + size, self.n))
                yield rows, self.read(rows)
            return
        run = min(_RUN, size) if self.on_disk else 1
        # Four bytes a run and nothing else that grows with N: ten million points are 40 MB.
        runs = torch.randperm(-(-self.n // run), generator=generator, dtype=torch.int32).numpy()
        for start in range(0, len(runs), size // run):
            firsts = runs[start : start + size // run].astype(np.int64) * run
            chosen = (firsts[:, None] + np.arange(run)).ravel()
            chosen = chosen[chosen < self.n]
            yield chosen, self.read(chosen)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """At most ``count`` different points, in random order."""
        rows = torch.randperm(self.n, generator=generator)[:count].numpy()
        return self.read(np.sort(rows))[torch.randperm(len(rows), generator=generator)]


def similarities(points_BD: Tensor, centers_KD: Tensor, metric: str) -> Tensor:
    """(B, K): what an assignment maximises. Cosine, or minus half the squared distance but for
    the point's own norm, which no assignment changes."""
    if metric == "cosine":
        return points_BD @ centers_KD.T
    return torch.addmm(centers_KD.square().sum(dim=1), points_BD, centers_KD.T, beta=-0.5)


def similarities_by_cluster(points_ND: Tensor, centers_KD: Tensor, metric: str) -> Tensor:
    """(K, N): :func:`similarities`, cluster by cluster."""
    products_KN = centers_KD @ points_ND.T
    if metric == "cosine":
        return products_KN
    return products_KN.sub_(0.5 * centers_KD.square().sum(dim=1, keepdim=True))


def own_similarities(points_BD: Tensor, centers_BD: Tensor, metric: str) -> Tensor:
    """(B,): :func:`similarities`, of each point to the center in its row."""
    products_B = (points_BD * centers_BD).sum(dim=1)
    return products_B if metric == "cosine" else products_B - 0.5 * centers_BD.square().sum(dim=1)


def means(sums_KD: Tensor, counts_K: Tensor, before_KD: Tensor, metric: str) -> Tensor:
    """Centers (K, D): means of what the clusters received, on the unit sphere for cosine.

    Args:
        counts_K: how many points the sums are of; any weights.

    A cluster that received nothing keeps its center.
    """
    received_K = counts_K > 0
    centers_KD = sums_KD / torch.where(received_K, counts_K, 1).unsqueeze(1)
    if metric == "cosine":
        centers_KD = F.normalize(centers_KD, dim=1)
    return torch.where(received_K.unsqueeze(1), centers_KD, before_KD)


def _row(rows: slice | NDArray[np.int64], i: int) -> int:
    return (rows.start or 0) + i if isinstance(rows, slice) else int(rows[i])
