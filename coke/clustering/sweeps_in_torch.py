"""The sweeps of a batch as operations on a device, see ``streaming_assignment``.

Shapes: B batch, S sub-batch (sweep), K clusters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coke.clustering.assignment import best_columns
from coke.clustering.sizes import SizeBounds
from coke.clustering.stream import PUSH, Stream


def sweeps_in_torch(
    similarities_BK: Tensor,
    before_B: Tensor,
    duals_K: Tensor,
    sizes_K: Tensor,
    stream: Stream,
    step: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B,), duals and sizes (K,) after a batch; asks the device for nothing.

    Args:
        step: dual step per point, a scalar.
    """
    n = stream.n_points
    duals_K, sizes_K = duals_K.clone(), sizes_K.clone()
    labels_B = torch.empty_like(before_B)
    seen_B = (before_B >= 0).to(duals_K.dtype)
    source_B = before_B.clamp(min=0)
    side = min(stream.sweep, len(before_B))
    earlier_SS = torch.ones(side, side, device=duals_K.device).tril_(-1)
    known = sizes_K.sum() / n  # share of all points that have a label
    chunks = zip(
        *(t.split(stream.sweep) for t in (similarities_BK, before_B, source_B, seen_B, labels_B)),
        strict=True,
    )
    for similarities_SK, before_S, source_S, seen_S, labels_S in chunks:
        wanted_S = best_columns(similarities_SK + duals_K)
        # In the order of the sweep, those leave first who come first.
        leaves_S = seen_S * (wanted_S != before_S)
        same_SS = source_S.unsqueeze(1) == source_S
        ahead_S = (earlier_SS[: len(same_SS), : len(same_SS)] * same_SS) @ leaves_S
        held_S = (leaves_S > 0) & (sizes_K[source_S] - ahead_S <= stream.held)
        labels_S.copy_(torch.where(held_S, before_S, wanted_S))

        change_K = torch.zeros_like(duals_K).index_add_(0, source_S, -seen_S)
        given_K = change_K.index_add(0, labels_S, torch.ones_like(seen_S))
        change_K.index_add_(0, wanted_S, torch.ones_like(seen_S))  # what it would be unheld
        seen = seen_S.sum() / n
        unseen = len(seen_S) / n - seen
        duals_K = _moved(duals_K, change_K, sizes_K, seen, unseen, known, stream.steered, step)
        sizes_K += given_K
    return labels_B, duals_K, sizes_K


def _moved(
    duals_K: Tensor,
    change_K: Tensor,
    sizes_K: Tensor,
    seen: Tensor,
    unseen: Tensor,
    known: Tensor,
    bounds: SizeBounds,
    step: Tensor,
) -> Tensor:
    """Duals (K,) after one step; a dual that would change its sign stops at zero.

    Args:
        change_K: points that the clusters won or lost in this sweep.
        seen, unseen: share of all points that are in this sweep, with a label before and without.
        known: share of all points that have a label.
    """
    free_K = duals_K - step * change_K
    drawn_K = free_K - step * _off(sizes_K, bounds.lower, seen, unseen, known)
    if bounds.lower == 0:  # nothing to be drawn in for
        drawn_K = torch.zeros_like(duals_K)
    if math.isinf(bounds.upper):
        return drawn_K.clamp_(min=0)
    if bounds.lower == bounds.upper:  # an equality, whose duals take any sign
        return drawn_K
    kept_out_K = free_K - step * _off(sizes_K, bounds.upper, seen, unseen, known)
    return torch.where(drawn_K > 0, drawn_K, kept_out_K.clamp_(max=0))


def _off(sizes_K: Tensor, bound: float, seen: Tensor, unseen: Tensor, known: Tensor) -> Tensor:
    """The part of the gradient (K,) that is no news: how far sizes are above their bound."""
    above_K = sizes_K - bound * known
    return seen * (above_K + PUSH * bound * above_K.sign()) - unseen * bound
