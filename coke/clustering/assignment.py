"""The rules of online constrained k-means as pure functions on tensors.

Shapes: B batch, D feature dimension, K clusters of one head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.sizes import SizeBounds


def assign(features_BD: Tensor, centers_KD: Tensor, duals_K: Tensor) -> Tensor:
    """Labels (B,) int64: the cluster with the highest similarity plus dual (Eqn. 8)."""
    return (features_BD @ centers_KD.T + duals_K).argmax(dim=1)


def update_duals(
    duals_K: Tensor, labels_B: Tensor, *, lr: float, min_ratio: float, free: bool = False
) -> Tensor:
    """One dual step with the gradient averaged over the batch (Sec. 4, simplified Eqn. 9).

    A cluster that got more than its share ``min_ratio / K`` of the batch becomes dearer, one that
    got less becomes cheaper. Duals stay non-negative, as a lower bound asks; with ``free`` they may
    take any sign, as an equality constraint (``min_ratio`` 1) asks.
    """
    n_clusters = duals_K.numel()
    share_K = _sizes(labels_B, n_clusters).to(duals_K.dtype) / labels_B.numel()
    duals_K = duals_K - lr * (share_K - min_ratio / n_clusters)
    return duals_K if free else duals_K.clamp_(min=0)


def assign_in_sweeps(
    similarities_BK: Tensor, duals_K: Tensor, shares: SizeBounds, *, rate: float, sweep: int
) -> tuple[Tensor, Tensor]:
    """Assigns a batch in sub-batches of ``sweep`` instances, moving the duals after each.

    Theorem 1 moves the duals after every instance; a sub-batch is that with a little latency.
    Centers do not move inside the batch, so similarities are computed once for all of it.

    Args:
        shares: bounds on a cluster's size as shares of all instances.
        rate: dual step per instance.

    Returns labels (B,) int64 and the new duals (K,).
    """
    duals_K = duals_K.clone()
    labels = torch.empty(len(similarities_BK), dtype=torch.int64, device=duals_K.device)
    given = torch.full((sweep,), -rate, dtype=duals_K.dtype, device=duals_K.device)
    for start in range(0, len(labels), sweep):
        chunk = slice(start, min(start + sweep, len(labels)))
        size = chunk.stop - chunk.start
        chosen = (similarities_BK[chunk] + duals_K).argmax(dim=1)
        labels[chunk] = chosen
        duals_K = shares.pull(duals_K.index_add_(0, chosen, given[:size]), rate * size)
    return labels, duals_K


def update_centers(
    centers_KD: Tensor, counts_K: Tensor, features_BD: Tensor, labels_B: Tensor, *, normalize: bool
) -> tuple[Tensor, Tensor]:
    """Moves each running center to the mean of what its cluster has received (Eqn. 11).

    A center weighs as much as the instances it already holds this epoch. Clusters that received
    nothing keep their center. ``normalize`` projects back to the unit sphere.

    Returns centers (K, D) and counts (K,).
    """
    added_K = _sizes(labels_B, len(counts_K)).to(counts_K.dtype)
    total_K = counts_K + added_K
    sums_KD = torch.zeros_like(centers_KD).index_add_(0, labels_B, features_BD)
    touched_K1 = (added_K > 0).unsqueeze(1)
    moved_KD = (centers_KD * counts_K.unsqueeze(1) + sums_KD) / total_K.clamp(min=1).unsqueeze(1)
    if normalize:
        moved_KD = F.normalize(moved_KD, dim=1)
    return torch.where(touched_K1, moved_KD, centers_KD), total_K


def _sizes(labels_B: Tensor, n_clusters: int) -> Tensor:
    """Instances per cluster (K,). Not ``bincount``, which waits for a GPU to learn its length."""
    return torch.zeros(n_clusters, device=labels_B.device).index_add_(
        0, labels_B, torch.ones(len(labels_B), device=labels_B.device)
    )
