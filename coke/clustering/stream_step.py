"""One batch of a stream: its labels, and where duals and centers move.

Shapes: B points of the batch, D dimensions, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coke.clustering.points import Points, means
from coke.clustering.sample_weights import pull
from coke.clustering.similarities import narrowed, similarities
from coke.clustering.sizes import ratio_bounds
from coke.clustering.stream import Stream
from coke.clustering.streaming_assignment import assign_stream


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """Clusters after some batches, in the coordinates of the next one.

    Attributes:
        centers: (K, D) float64.
        duals: (K,) float64.
        counts: (K,) int64 points received.
        masses: (K,) float64 weights received.
    """

    centers: Tensor
    duals: Tensor
    counts: Tensor
    masses: Tensor

    @classmethod
    def at(cls, centers_KD: Tensor) -> StreamState:
        """Clusters that have received no points."""
        zeros_K = torch.zeros(len(centers_KD), dtype=torch.float64)
        return cls(centers=centers_KD, duals=zeros_K, counts=zeros_K.long(), masses=zeros_K)


def stream_step(
    points: Points,
    weights_B: Tensor | None,
    state: StreamState,
    min_ratio: float,
    max_ratio: float | None = None,
) -> tuple[Tensor, StreamState, float]:
    """Labels (B,), the clusters after the batch, and the largest breach of a size, relative.

    Args:
        points: the batch.
        weights_B: (B,) float64 weight of each point; 1 if None.
        state: before the batch.
        min_ratio, max_ratio: smallest and largest size as shares of the points so far / K.
    """
    batch_BD, k = points.whole(), len(state.counts)
    seen = int(state.counts.sum()) + points.n
    bounds = ratio_bounds(seen, k, min_ratio, max_ratio or 0.0)
    values_BK = narrowed(similarities(batch_BD, state.centers, direct=points.direct))
    if weights_B is None:
        weights_B = torch.ones(points.n, dtype=torch.float64)
    else:
        values_BK.mul_(pull(weights_B / weights_B.mean()).float().unsqueeze(1))
    labels_B, duals_K, _ = assign_stream(
        values_BK,
        torch.full((points.n,), -1),
        state.duals.float(),
        state.counts.to(torch.float32),
        Stream(n_points=seen, steered=bounds, held=0, sweep=8),
    )
    counts_K = state.counts + torch.bincount(labels_B, minlength=k)
    masses_K = state.masses + torch.bincount(labels_B, weights_B, minlength=k)
    sums_KD = state.centers * state.masses.unsqueeze(1)
    sums_KD.index_add_(0, labels_B, batch_BD * weights_B.unsqueeze(1))
    after = StreamState(
        centers=means(sums_KD, masses_K, state.centers, points.metric, points.coordinates),
        duals=duals_K.double(),
        counts=counts_K,
        masses=masses_K,
    )
    return labels_B, after, bounds.violation(counts_K)


def check_ids(ids: Any, count: int) -> None:
    """Raises ValueError unless ids are None, or ``count`` different ones."""
    if ids is None:
        return
    ids = np.asarray(ids)
    if ids.shape != (count,):
        raise ValueError(f"ids have shape {ids.shape}; {count} points need {(count,)}")
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != count:
        raise ValueError(
            f"id {values[counts > 1][0]} is there {counts.max()} times in one batch; give each "
            "point once"
        )
