"""The rules of online constrained k-means as functions on tensors.

Shapes: B batch, D feature dimension, K clusters of one head.

None of them asks the device for a value, so on a GPU the host never waits, and all of them give the
same bits on every run: ranks that each compute the same step stay equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.scratch import Scratch
from coke.clustering.sizes import SizeBounds

# On a CPU: similarities of so many rows at a time, 5 MB at K = 5,000, stay in its cache
_ROWS = 256


def similarities(features_BD: Tensor, centers_KD: Tensor, scratch: Scratch) -> Tensor:
    """Inner products (B, K); valid until ``scratch`` is asked again."""
    out_BK = scratch.matrix(len(features_BD), len(centers_KD), features_BD)
    return torch.mm(features_BD, centers_KD.T, out=out_BK)


def assign(
    features_BD: Tensor, centers_KD: Tensor, duals_K: Tensor, scratch: Scratch | None = None
) -> Tensor:
    """Labels (B,) int64: the cluster with the highest similarity plus dual (Eqn. 8)."""
    scratch = scratch or Scratch()
    on_cpu = features_BD.device.type == "cpu"
    parts = features_BD.split(_ROWS) if on_cpu else (features_BD,)
    return torch.cat(
        [best_columns(similarities(part, centers_KD, scratch).add_(duals_K)) for part in parts]
    )


def best_columns(values_BK: Tensor) -> Tensor:
    """Column (B,) int64 of the largest value of each row, the first of equals.

    On a CPU it is numpy's ``argmax``, which compares eight values at a time: 20 times as fast as
    torch's.
    """
    if values_BK.device.type != "cpu":
        return values_BK.argmax(dim=1)
    return torch.from_numpy(values_BK.numpy().argmax(axis=1))


def update_duals(duals_K: Tensor, labels_B: Tensor, *, lr: float, shares: SizeBounds) -> Tensor:
    """One dual step with the gradient averaged over the batch (Sec. 4, simplified Eqn. 9).

    A cluster that got more of the batch than it should becomes dearer, one that got less becomes
    cheaper. Duals stay non-negative under a lower bound; they may take any sign under an upper
    bound as well.

    Args:
        shares: what a cluster should get, as a share of the batch.
    """
    share_K = sizes_of(labels_B, duals_K.numel()).to(duals_K.dtype) / labels_B.numel()
    return shares.step(duals_K, share_K, lr)


def update_centers_(
    centers_KD: Tensor, counts_K: Tensor, features_BD: Tensor, labels_B: Tensor, *, normalize: bool
) -> None:
    """Moves each running center to the mean of what its cluster has received (Eqn. 11), in place.

    A center weighs as much as the instances that ``counts_K`` says it holds already; the batch's
    are added to them. ``normalize`` projects back to the unit sphere. Clusters that received
    nothing are not touched, so a step costs B rows, however many clusters there are.
    """
    # Every row of the batch computes the new center of its cluster. Rows of one cluster find the
    # same, so it does not matter which of them is written last.
    one_row_K = torch.empty(len(counts_K), dtype=torch.int64, device=labels_B.device)
    one_row_K[labels_B] = torch.arange(len(labels_B), device=labels_B.device)
    sums_BD = _sums(features_BD, one_row_K[labels_B])
    before_B1 = counts_K[labels_B].unsqueeze(1)
    counts_K.index_add_(0, labels_B, torch.ones_like(labels_B, dtype=counts_K.dtype))
    after_B1 = counts_K[labels_B].unsqueeze(1)
    moved_BD = centers_KD[labels_B].mul_(before_B1).add_(sums_BD).div_(after_B1)
    if normalize:
        moved_BD = F.normalize(moved_BD, dim=1)
    centers_KD[labels_B] = moved_BD


def _sums(features_BD: Tensor, one_row_B: Tensor) -> Tensor:
    """The sum (B, D) over all rows of a cluster, for each row.

    ``one_row_B`` names one row per cluster. On a GPU, ``index_add_`` adds in an order that differs
    from run to run; ``index_put_`` sorts first.
    """
    sums_BD = torch.zeros_like(features_BD)
    if features_BD.device.type == "cpu":
        sums_BD.index_add_(0, one_row_B, features_BD)
    else:
        sums_BD.index_put_((one_row_B,), features_BD, accumulate=True)
    return sums_BD[one_row_B]


def sizes_of(labels_B: Tensor, n_clusters: int) -> Tensor:
    """Instances per cluster (K,). Not ``bincount``, which waits for a GPU to learn its length."""
    return torch.zeros(n_clusters, device=labels_B.device).index_add_(
        0, labels_B, torch.ones(len(labels_B), device=labels_B.device)
    )
