"""Assigning points one after the other so that cluster sizes stay within their bounds.

Theorem 1 moves the duals with the subgradient of one instance: what a cluster got, against its
share. That subgradient is mostly noise: with N / K = 20 points per cluster, who happens to come
next decides. Here it is freed of that noise with what the label store knows anyway, the label of
the instance when it was seen last: SAGA (Defazio, Bach, Lacoste-Julien, 2014) on the dual, with the
labels as its table of gradients. A dual moves by what the new label *changes*, plus the distance of
all labels together from the bound. So it settles when labels do, and the step need not shrink.

Shapes: B batch, S sub-batch (sweep), K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coke.clustering.stream import Stream
from coke.clustering.sweeps_in_numpy import sweeps_in_numpy
from coke.clustering.sweeps_in_torch import sweeps_in_torch

GAIN = 4.0  # dual step: a cluster that gains all its N / K points pays so many spreads
_SPREAD_ROWS = 32  # of a batch, which tell how far similarities are apart


def spread_of(similarities_BK: Tensor) -> Tensor:
    """How far the similarities of a point to the centers are apart, typically; a scalar."""
    if similarities_BK.shape[1] < 2:
        return similarities_BK.new_ones(())
    some_SK = similarities_BK[:_SPREAD_ROWS]
    off_SK = some_SK - some_SK.mean(dim=1, keepdim=True)  # torch's std takes ten times as long
    spread = (off_SK.square().sum(dim=1) / (some_SK.shape[1] - 1)).sqrt().mean()
    return spread.clamp(min=torch.finfo(spread.dtype).tiny)


def dual_step(
    similarities_BK: Tensor, before_B: Tensor, duals_K: Tensor, sizes_K: Tensor, stream: Stream
) -> Tensor:
    """How far a point moves its cluster's dual, a scalar; see :attr:`Stream.first_step`."""
    new = (before_B < 0).to(sizes_K.dtype).mean()
    unknown = 1 - sizes_K.sum() / stream.n_points
    gain = GAIN * (1 + (stream.first_step - 1) * new * unknown**2)
    return gain * spread_of(similarities_BK) * (len(duals_K) / stream.n_points)


def assign_stream(
    similarities_BK: Tensor, before_B: Tensor, duals_K: Tensor, sizes_K: Tensor, stream: Stream
) -> tuple[Tensor, Tensor, Tensor]:
    """Assigns a batch in sweeps, moving duals and sizes after each.

    Centers do not move inside the batch, so similarities are computed once for all of it. Nothing
    here waits for a GPU.

    Args:
        before_B: (B,) int64, the labels that these points have so far; -1 for none.
        duals_K: (K,) float32, prices that are added to similarities.
        sizes_K: (K,) float32, points that have each label so far, the batch's included.

    Returns: labels (B,) int64, and the new duals and sizes (K,).
    """
    step = dual_step(similarities_BK, before_B, duals_K, sizes_K, stream)
    if similarities_BK.device.type != "cpu":
        return sweeps_in_torch(similarities_BK, before_B, duals_K, sizes_K, stream, step)
    labels, duals, sizes = sweeps_in_numpy(
        similarities_BK.numpy(),
        before_B.numpy(),
        duals_K.numpy(),
        sizes_K.numpy(),
        stream,
        float(step),
    )
    return torch.from_numpy(labels), torch.from_numpy(duals), torch.from_numpy(sizes)
