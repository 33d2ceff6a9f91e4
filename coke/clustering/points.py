"""Points of a stand-alone clustering: read in batches, from memory or from disk, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.coordinates import SMALLEST, Coordinates, power_of_two
from coke.clustering.stacked_rows import StackedRows

METRICS = ("cosine", "euclidean")
_RUN = 64  # rows of a file that are read together: single rows would cost a seek each
_CHUNK = 1 << 18  # values (2 MB in float64, so that they stay in a cache) that are read together
_MIDDLE = 4096  # rows whose median is the origin
_ALIKE = 0.1  # root mean square distance of unit vectors from their mean that calls for centering


class Points:
    """N points of D dimensions, read in batches, in coordinates that are good to calculate with.

    For the cosine metric, points are of unit norm in the user's coordinates.

    Args:
        array: (N, D) real numbers, as :func:`~coke.clustering.point_array.point_array` gives them.
        metric: ``"cosine"`` or ``"euclidean"``.
        coordinates: those in which points are read; without them, ones around the points' mean,
            for which all points are looked at.
        weights: (N,) float64 weight of each point; all the same if None.

    Attributes:
        weights: as given, divided by their mean; None if all are the same.
        mean_weight: that mean; 1 without weights.
        variance: of a feature, in these coordinates; 0 where ``coordinates`` were given.
        squares: sum of squared norms in the user's coordinates; likewise.
        dtype: of what is read; float32 unless it is set.
        direct: whether similarities need the differences of coordinates; False unless it is set.

    Raises:
        ValueError: without ``coordinates``, as :meth:`read`; or values whose squares are too large.
    """

    def __init__(
        self,
        array: NDArray[Any] | StackedRows,
        metric: str,
        coordinates: Coordinates | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self._array = array
        self.mean_weight = 1.0 if weights is None else float(weights.mean())
        self.weights = None if weights is None else weights / self.mean_weight
        self.metric = metric
        self.n, self.d = self._array.shape
        self.on_disk = isinstance(self._array, np.memmap | StackedRows)
        self.dtype, self.direct = torch.float32, False
        self.exact = _exact_type(self._array.dtype)
        self.coordinates = Coordinates.plain(self.d)
        self.variance = self.squares = 0.0
        if coordinates is None:
            self._measure()
        else:
            self.coordinates = coordinates

    def read(self, rows: slice | NDArray[np.int64]) -> Tensor:
        """Points (B, D) of these rows, a copy.

        Raises:
            ValueError: a value is not finite, or a vector without direction under cosine.
        """
        values_BD = self._directed(rows)
        if not self.coordinates.is_plain:
            # In the type of the input, in which this is exact for points near the origin.
            values_BD = values_BD - self.coordinates.origin.astype(self.exact)
            values_BD /= self.exact(self.coordinates.scale)
        if not values_BD.flags.writeable:  # a part of a memory map
            values_BD = values_BD.copy()
        points_BD = torch.from_numpy(values_BD).to(self.dtype)
        shared = np.may_share_memory(values_BD, self._array) if not self.on_disk else False
        return points_BD.clone() if shared and points_BD.dtype == self.dtype else points_BD

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

    def sample(self, count: int, generator: torch.Generator) -> tuple[NDArray[np.int64], Tensor]:
        """Rows and points of at most ``count`` different points, in random order."""
        rows = np.sort(torch.randperm(self.n, generator=generator)[:count].numpy())
        order = torch.randperm(len(rows), generator=generator)
        return rows[order.numpy()], self.read(rows)[order]

    def whole(self) -> Tensor:
        """All points (N, D)."""
        points_ND = torch.empty(self.n, self.d, dtype=self.dtype)
        for rows, batch_BD in self.batches(max(_CHUNK // self.d, 1)):
            points_ND[rows] = batch_BD
        return points_ND

    def _directed(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Points (B, D) in the user's coordinates, checked; of unit norm for cosine."""
        values_BD = np.asarray(self._array[rows], dtype=self.exact)
        # A sum is finite only where all its values are; it needs no memory, unlike a closer look.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(np.isfinite(values_BD.sum())) or bool(np.isfinite(values_BD).all())
        if not finite:
            bad = int(np.flatnonzero((~np.isfinite(values_BD)).any(axis=1))[0])
            raise ValueError(
                f"Input X contains NaN, infinity or a value too large for "
                f"{np.dtype(self.exact).name}, in row {_row(rows, bad)}; remove such rows first"
            )
        if self.metric == "euclidean":
            return values_BD
        unit_BD = unit_rows(values_BD)
        if np.isnan(unit_BD.sum()):
            bad = int(np.flatnonzero(np.isnan(unit_BD).any(axis=1))[0])
            raise ValueError(
                f"row {_row(rows, bad)} is a zero vector, which has no direction; remove it, or "
                'use metric="euclidean"'
            )
        return unit_BD

    def _measure(self) -> None:
        """Mean and variance of all points, chunk by chunk (Chan, Golub and LeVeque, 1983)."""
        mean_D, squares, count = np.zeros(self.d), 0.0, 0.0
        step = max(_CHUNK // self.d, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, self.n, step):
                rows = slice(start, min(start + step, self.n))
                chunk_BD = self._directed(rows)
                weights_B = None if self.weights is None else self.weights[rows].numpy()
                added = len(chunk_BD) if weights_B is None else float(weights_B.sum())
                if not added:
                    continue
                center_D = chunk_BD.mean(axis=0, dtype=np.float64)
                if weights_B is not None:
                    center_D = weights_B @ chunk_BD / added
                off_BD = chunk_BD - center_D
                moved_D = center_D - mean_D
                total = count + added
                if weights_B is None:
                    squares += float(np.vdot(off_BD, off_BD))
                else:
                    squares += float(weights_B @ np.square(off_BD).sum(axis=1))
                squares += float(moved_D @ moved_D) * count * added / total
                mean_D += moved_D * (added / total)
                count = total
            self.squares = squares + self.n * float(mean_D @ mean_D)
        if not np.isfinite(self.squares):
            raise ValueError(
                "Input X contains a value too large for squared distances in float64; scale the "
                "points down"
            )
        spread = float(np.sqrt(squares / self.n))
        if self.metric == "euclidean" and self._is_too_small(spread):
            raise ValueError(
                "the points of X differ by too little for squared distances in float64; scale the "
                "points up"
            )
        # Directions that are not nearly alike need no other coordinates than their own.
        if self.metric == "euclidean" or spread < _ALIKE:
            self.coordinates = Coordinates(origin=self._middle(), scale=power_of_two(spread))
        self.variance = squares / self.n / self.d / self.coordinates.scale**2

    def _middle(self) -> NDArray[np.float64]:
        """The median (D,) of some points: a few far ones do not take it away from the others.

        It is a coordinate of a point, so that near points minus the origin are exact.
        """
        some = np.unique(np.linspace(0, self.n - 1, min(self.n, _MIDDLE)).astype(np.int64))
        some_SD = self._directed(some)
        middle = len(some) // 2
        middle_D: NDArray[np.float64] = np.partition(some_SD, middle, axis=0)[middle].astype(
            np.float64
        )
        return middle_D

    def _is_too_small(self, spread: float) -> bool:
        """Whether squared distances underflow, though points differ."""
        if spread > SMALLEST:
            return False
        step, first_1D = max(_CHUNK // self.d, 1), self._directed(slice(0, 1))
        return any(
            bool((self._directed(slice(start, start + step)) != first_1D).any())
            for start in range(0, self.n, step)
        )


def unit_rows(values_BD: NDArray[Any]) -> NDArray[Any]:
    """Rows of unit norm, whatever norm they had; NaN for rows of zeros."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norms_B = np.sqrt(np.einsum("bd,bd->b", values_BD, values_BD))
        # Squares of very large and very small values leave the range of the type.
        limit = np.sqrt(np.finfo(values_BD.dtype).max) / 1e3
        extreme = np.flatnonzero(~((norms_B < limit) & (norms_B > 1 / limit)))
        if len(extreme):
            some_MD = values_BD[extreme].astype(np.float64)
            some_MD /= np.abs(some_MD).max(axis=1, keepdims=True)
            values_BD = values_BD.copy()
            values_BD[extreme] = some_MD
            norms_B[extreme] = np.linalg.norm(some_MD, axis=1)
        unit_BD: NDArray[Any] = values_BD / norms_B[:, None]
    return unit_BD


def means(
    sums_KD: Tensor, counts_K: Tensor, before_KD: Tensor, metric: str, coordinates: Coordinates
) -> Tensor:
    """Centers (K, D): means of what the clusters received, on the unit sphere for cosine.

    Args:
        counts_K: how many points the sums are of; any weights.

    A cluster that received nothing keeps its center.
    """
    received_K = counts_K > 0
    centers_KD = sums_KD / torch.where(received_K, counts_K, 1).unsqueeze(1)
    if metric == "cosine":
        centers_KD = on_sphere(centers_KD, coordinates)
    return torch.where(received_K.unsqueeze(1), centers_KD.to(before_KD.dtype), before_KD)


def on_sphere(centers_KD: Tensor, coordinates: Coordinates) -> Tensor:
    """Of unit norm in the user's coordinates."""
    if coordinates.is_plain:
        return F.normalize(centers_KD, dim=1)
    outside_KD = F.normalize(torch.from_numpy(coordinates.back(centers_KD.numpy())), dim=1)
    return torch.from_numpy(coordinates.into(outside_KD.numpy())).to(centers_KD.dtype)


def _row(rows: slice | NDArray[np.int64], i: int) -> int:
    return (rows.start or 0) + i if isinstance(rows, slice) else int(rows[i])


def _exact_type(dtype: np.dtype[Any]) -> type[np.floating]:
    """The type in which values of this one are calculated with: float32 where it holds them."""
    return np.float32 if np.can_cast(dtype, np.float32) else np.float64
