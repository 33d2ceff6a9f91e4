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

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coke.clustering.assignment import best_columns
from coke.clustering.sizes import SizeBounds

GAIN = 4.0  # dual step: a cluster that gains all its N / K points pays so many spreads
_MARGIN = 0.01  # sizes are steered to a little above a lower bound, and never settle below it
_SLACK = 0.04  # of equal sizes, which no label could ever leave otherwise
_PUSH = 0.1  # of the bound: distance that a size off its bound counts more than it is
_SPREAD_ROWS = 32  # of a batch, which tell how far similarities are apart
_EQUAL = 1e-6  # a size this close to its bound is at it


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What the sizes of clusters over ``n_points`` points are steered to.

    Attributes:
        steered: bounds that the duals aim at.
        held: a point never leaves a cluster that would have fewer points without it.
        sweep: points between two moves of the duals.
    """

    n_points: int
    steered: SizeBounds
    held: float
    sweep: int

    @classmethod
    def of(cls, bounds: SizeBounds, n_points: int, n_clusters: int) -> Stream:
        """For bounds on the number of points of a cluster."""
        held = float(math.floor(bounds.lower + _EQUAL))
        steered = bounds
        if bounds.lower == bounds.upper:
            held = min(held - 1, math.floor((1 - _SLACK) * bounds.lower))
        elif bounds.lower > 0:
            wanted = min((1 + _MARGIN) * bounds.lower + 0.5, n_points / n_clusters, bounds.upper)
            steered = SizeBounds(lower=wanted, upper=bounds.upper)
        # Few enough that a cluster's size changes little within a sweep.
        sweep = max(8, min(n_points // (8 * n_clusters), n_points // 512))
        return cls(n_points=n_points, steered=steered, held=held, sweep=sweep)


def spread_of(similarities_BK: Tensor) -> Tensor:
    """How far the similarities of a point to the centers are apart, typically; a scalar."""
    if similarities_BK.shape[1] < 2:
        return similarities_BK.new_ones(())
    spread = similarities_BK[:_SPREAD_ROWS].std(dim=1).mean()
    return spread.clamp(min=torch.finfo(spread.dtype).tiny)


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
    n, k = stream.n_points, len(duals_K)
    step = GAIN * spread_of(similarities_BK) * (k / n)
    duals_K, sizes_K = duals_K.clone(), sizes_K.clone()
    labels_B = torch.empty_like(before_B)
    seen_B = (before_B >= 0).to(duals_K.dtype)
    source_B = before_B.clamp(min=0)
    earlier_SS = torch.ones(stream.sweep, stream.sweep, device=duals_K.device).tril_(-1)
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
    return seen * (above_K + _PUSH * bound * above_K.sign()) - unseen * bound
