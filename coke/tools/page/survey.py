"""One pass over all features: distances to centers, neighbours of a few rows, a sample's features.

Never more than a batch's comparison with all centers is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.distances import own_losses, unit
from coke.files.npy_rows import NpyRows
from coke.tools.page.feature_stream import FeatureStream
from coke.tools.page.neighbours import NearestRows

_COMPARED = 1 << 23  # rows times centers that are compared together: 64 MiB in float64
_READ_ROWS = 8192  # rows that are read together from the scratch file


@dataclass(frozen=True, kw_only=True)
class Head:
    """Clusters of one head.

    Attributes:
        centers: (K, E), their centers, on the device.
        labels: (N,), the cluster of each row, -1 for none; None if rows belong
            to the nearest center.
    """

    name: str
    centers: Tensor
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A head's clusters and where rows are in them.

    Attributes:
        labels: (N,), the cluster of each row, -1 for none.
        distances: (N,) float32, distance of each row to its center: Euclidean, or 1 minus
            the cosine; NaN without a cluster.
    """

    name: str
    centers: Tensor
    labels: NDArray[np.int64]
    distances: NDArray[np.float32]

    @property
    def n_clusters(self) -> int:
        return len(self.centers)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one pass found.

    Attributes:
        sample_rows, sample: rows (M,) of the sample and their plain features (M, D).
        again: gives all rows' clustered features once more, with the number of the first row.
    """

    metric: str
    heads: list[Assigned]
    nearest: NearestRows
    sample_rows: NDArray[np.int64]
    sample: Tensor
    again: Callable[[], Iterator[tuple[int, Tensor]]]


@dataclass
class _Collected:
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    distances: list[NDArray[np.float32]] = field(default_factory=list)


def survey(
    stream: FeatureStream,
    heads: list[Head],
    *,
    metric: str,
    queries_Q: NDArray[np.int64],
    sample_M: NDArray[np.int64],
    scratch: Path,
    console: Console,
) -> Survey:
    """Reads all features once.

    Args:
        queries_Q: rows whose neighbours are looked for, ascending.
        sample_M: rows whose features are kept, ascending.
        scratch: a folder for the clustered features, 4 N E bytes, unless the stream has them.
    """
    nearest = NearestRows(queries_Q, stream.take(queries_Q), metric=metric)
    collected = [_Collected() for _ in heads]
    sampled: list[Tensor] = []
    path = scratch / "clustered.npy"
    with ExitStack() as stack:
        progress = stack.enter_context(
            Progress(console=console, transient=True, disable=not console.is_terminal)
        )
        kept: NpyRows | None = None
        task = progress.add_task("features", total=stream.rows)
        for batch in stream.batches():
            stop = batch.start + len(batch.plain)
            nearest.add(batch.start, batch.plain)
            at_M = sample_M[(sample_M >= batch.start) & (sample_M < stop)] - batch.start
            sampled.append(batch.plain[torch.from_numpy(at_M).to(stream.device)])
            for head, of in zip(heads, collected, strict=True):
                _assign(head, batch.start, batch.clustered, metric, of)
            if not stream.as_they_are:
                shape = (stream.rows, batch.clustered.shape[1])
                kept = kept or stack.enter_context(NpyRows(path, shape, "float32"))
                kept.append(batch.clustered.float().cpu().numpy())
            progress.advance(task, len(batch.plain))
    return Survey(
        metric=metric,
        heads=[_assigned(head, of) for head, of in zip(heads, collected, strict=True)],
        nearest=nearest,
        sample_rows=sample_M,
        sample=torch.cat(sampled),
        again=_stream_again(stream) if stream.as_they_are else _file_again(path, stream.device),
    )


def margins(
    found: Survey, head: Assigned, clusters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """How much nearer the rows of some clusters are to their center than to any other.

    Returns: rows (R,), margins (R,) float32, and the nearest other cluster (R,). A margin is
    negative where another center is nearer, as a constraint on sizes may ask for.
    """
    chosen_K = np.zeros(head.n_clusters, dtype=np.bool_)
    chosen_K[clusters] = True
    rows, values, others = [], [], []
    step = max(1, _COMPARED // head.n_clusters)
    others_of = _OtherCenters(head.centers, found.metric)
    for start, clustered_BE in found.again():
        labels_B = head.labels[start : start + len(clustered_BE)]
        at_R = np.flatnonzero((labels_B >= 0) & chosen_K[labels_B])
        for part in np.array_split(at_R, -(-len(at_R) // step) or 1):
            if not len(part):
                continue
            points_RE = clustered_BE[torch.from_numpy(part).to(clustered_BE.device)]
            own_R = torch.from_numpy(labels_B[part]).to(points_RE.device)
            other_R = others_of.nearest(points_RE, own_R)
            leads_R = _own_distances(points_RE, head.centers, other_R, found.metric)
            leads_R -= _own_distances(points_RE, head.centers, own_R, found.metric)
            rows.append(part + start)
            values.append(leads_R.float().cpu().numpy())
            others.append(other_R.cpu().numpy())
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing.astype(np.float32), nothing
    return np.concatenate(rows), np.concatenate(values), np.concatenate(others)


def _assign(head: Head, start: int, clustered_BE: Tensor, metric: str, of: _Collected) -> None:
    if head.labels is None:
        assert metric == "cosine"
        step = max(1, _COMPARED // len(head.centers))
        labels_B = torch.cat(
            [
                (F.normalize(part_BE, dim=1) @ head.centers.T).argmax(dim=1)
                for part_BE in clustered_BE.split(step)
            ]
        )
    else:
        labels_B = torch.from_numpy(head.labels[start : start + len(clustered_BE)]).to(
            clustered_BE.device
        )
    distances_B = _own_distances(clustered_BE, head.centers, labels_B.clamp(min=0), metric)
    distances_B = distances_B.masked_fill(labels_B < 0, torch.nan)
    of.labels.append(labels_B.cpu().numpy())
    of.distances.append(distances_B.float().cpu().numpy())


class _OtherCenters:
    """Finds the nearest center but a point's own, by one matrix product in float64.

    Euclidean distances are compared as ``x c - |c|^2 / 2``, about the mean of the centers, so that
    a common offset costs no digits. :func:`coke.clustering.distances.distances` goes over all
    coordinates of all pairs, which takes far longer.
    """

    def __init__(self, centers_KE: Tensor, metric: str) -> None:
        self._cosine = metric == "cosine"
        self._origin_E = centers_KE.double().mean(dim=0)
        # A point's norm does not change the order of its cosines.
        self._centers_KE = unit(centers_KE) if self._cosine else centers_KE - self._origin_E
        self._halves_K = self._centers_KE.square().sum(dim=1) / 2

    def nearest(self, points_RE: Tensor, own_R: Tensor) -> Tensor:
        """The number (R,) int64 of the center."""
        points_RE = points_RE.double()
        if self._cosine:
            near_RK = points_RE @ self._centers_KE.T
        else:
            near_RK = torch.addmm(
                self._halves_K, points_RE - self._origin_E, self._centers_KE.T, beta=-1
            )
        return near_RK.scatter_(1, own_R.unsqueeze(1), -torch.inf).argmax(dim=1)


def _own_distances(points_BE: Tensor, centers_KE: Tensor, labels_B: Tensor, metric: str) -> Tensor:
    """Distances (B,) float64 of points to the centers of their labels."""
    losses_B = own_losses(points_BE, centers_KE[labels_B], metric)
    return losses_B if metric == "cosine" else losses_B.sqrt()


def _assigned(head: Head, of: _Collected) -> Assigned:
    return Assigned(
        name=head.name,
        centers=head.centers,
        labels=np.concatenate(of.labels),
        distances=np.concatenate(of.distances),
    )


def _stream_again(stream: FeatureStream) -> Callable[[], Iterator[tuple[int, Tensor]]]:
    return lambda: ((batch.start, batch.clustered) for batch in stream.batches())


def _file_again(path: Path, device: torch.device) -> Callable[[], Iterator[tuple[int, Tensor]]]:
    def again() -> Iterator[tuple[int, Tensor]]:
        kept = np.load(path, mmap_mode="r")
        for start in range(0, len(kept), _READ_ROWS):
            yield start, torch.tensor(np.array(kept[start : start + _READ_ROWS]), device=device)

    return again
