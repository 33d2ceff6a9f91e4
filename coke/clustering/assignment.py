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

_ROWS = (
    256  # on a CPU: similarities of so many rows at a time, 5 MB at K = 5,000, stay in its cache
)
_BLOCK = 256  # columns that are searched together, see best_columns


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
    """Column (B,) int64 of the largest value of each row, the first of equals: ``argmax(dim=1)``.

    On a CPU, ``amax`` is several times as fast as ``argmax``. So the largest value of each block of
    columns comes first, and only the block that has the row's largest is searched for it.
    """
    n_rows, k = values_BK.shape
    n_blocks = k // _BLOCK
    if values_BK.device.type != "cpu" or n_blocks < 2:
        return values_BK.argmax(dim=1)
    whole = n_blocks * _BLOCK
    largest = values_BK.new_full((n_rows, n_blocks + 1), -torch.inf)
    largest[:, :n_blocks] = values_BK[:, :whole].unflatten(1, (n_blocks, _BLOCK)).amax(dim=2)
    if whole < k:
        largest[:, n_blocks] = values_BK[:, whole:].amax(dim=1)
    # The last block is shorter: its search begins earlier, at values that are smaller.
    start_B1 = (largest.argmax(dim=1, keepdim=True) * _BLOCK).clamp_(max=k - _BLOCK)
    block = values_BK.gather(1, start_B1 + torch.arange(_BLOCK))
    return start_B1.squeeze(1) + block.argmax(dim=1)


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
    labels_B = torch.empty(len(similarities_BK), dtype=torch.int64, device=duals_K.device)
    given = torch.full((sweep,), -rate, dtype=duals_K.dtype, device=duals_K.device)
    priced = torch.empty_like(similarities_BK[:sweep])  # written in place: this is a hot loop
    chunks = zip(similarities_BK.split(sweep), labels_B.split(sweep), strict=True)
    for similarities_SK, labels_S in chunks:
        size = len(labels_S)
        torch.add(similarities_SK, duals_K, out=priced[:size])
        torch.argmax(priced[:size], dim=1, out=labels_S)
        duals_K = shares.pull(duals_K.index_add_(0, labels_S, given[:size]), rate * size)
    return labels_B, duals_K


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


def _sizes(labels_B: Tensor, n_clusters: int) -> Tensor:
    """Instances per cluster (K,). Not ``bincount``, which waits for a GPU to learn its length."""
    return torch.zeros(n_clusters, device=labels_B.device).index_add_(
        0, labels_B, torch.ones(len(labels_B), device=labels_B.device)
    )
