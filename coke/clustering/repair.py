"""Sizes made to fit: the cheapest moves that bring every cluster inside its bounds.

Prices (the duals) bring an assignment close to its bounds; points come one by one, so some cluster
stays a few points short. Here these are taken from where they cost least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from coke.clustering.sizes import SizeBounds

#: Chunks of all points: their first row, and the priced similarities (B, K) of that chunk.
PricedChunks = Callable[[], Iterable[tuple[int, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Points that changed their cluster, (M,) each: which, from where and to where."""

    points: Tensor
    sources: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class _Moves:
    """Moves that would help, (M,) each: points, where to, and the similarity that is lost."""

    points: Tensor
    targets: Tensor
    costs: Tensor


def repair(
    labels_N: Tensor, sizes_K: Tensor, bounds: SizeBounds, priced: PricedChunks
) -> list[Moved]:
    """Moves points until every cluster keeps its bounds; changes labels and sizes in place.

    Args:
        labels_N: (N,) int64.
        sizes_K: (K,) int64, what ``labels_N`` counts to.
        bounds: feasible ones: K * lower <= N <= K * upper.
        priced: similarities plus duals, chunk by chunk, as often as it is called: once per round.

    Returns: what was moved, round by round.
    """
    rounds: list[Moved] = []
    while True:
        missing_K = (bounds.lower - sizes_K).clamp(min=0)
        excess_K = (sizes_K - bounds.upper).clamp(min=0)
        if not bool((missing_K > 0).any() or (excess_K > 0).any()):
            return rounds
        moves = _joined(
            _moves_of(first, values_BK, labels_N, sizes_K, missing_K, excess_K, bounds)
            for first, values_BK in priced()
        )
        moved = _apply(moves, labels_N, sizes_K, bounds)
        assert len(moved.points), "feasible bounds leave a move that helps"
        rounds.append(moved)


def _moves_of(
    first: int,
    values_BK: Tensor,
    labels_N: Tensor,
    sizes_K: Tensor,
    missing_K: Tensor,
    excess_K: Tensor,
    bounds: SizeBounds,
) -> _Moves:
    """The cheapest moves of one chunk: as many into each short cluster as it misses, and one for
    each point of a cluster that is too large."""
    labels_B = labels_N[first : first + len(values_BK)]
    own_B = values_BK.gather(1, labels_B.unsqueeze(1)).squeeze(1)
    can_give_B = (sizes_K > bounds.lower)[labels_B]
    points, targets, costs = [], [], []
    for cluster in missing_K.nonzero().flatten().tolist():
        cost_B = torch.where(can_give_B, own_B - values_BK[:, cluster], torch.inf)
        count = min(int(missing_K[cluster].ceil()), int(can_give_B.sum()))
        cheapest = cost_B.topk(count, largest=False).indices
        points.append(cheapest)
        targets.append(torch.full_like(cheapest, cluster))
        costs.append(cost_B[cheapest])
    leavers = (excess_K > 0)[labels_B].nonzero().flatten()
    if len(leavers):
        open_K = sizes_K < bounds.upper
        value_M, target_M = values_BK[leavers].masked_fill(~open_K, -torch.inf).max(dim=1)
        points.append(leavers)
        targets.append(target_M)
        costs.append(own_B[leavers] - value_M)
    if not points:
        empty = torch.empty(0, dtype=torch.int64)
        return _Moves(points=empty, targets=empty, costs=empty.float())
    return _Moves(
        points=torch.cat(points) + first,
        targets=torch.cat(targets),
        costs=torch.cat(costs),
    )


def _joined(chunks: Iterable[_Moves]) -> _Moves:
    moves = list(chunks)
    return _Moves(
        points=torch.cat([m.points for m in moves]),
        targets=torch.cat([m.targets for m in moves]),
        costs=torch.cat([m.costs for m in moves]),
    )


def _apply(moves: _Moves, labels_N: Tensor, sizes_K: Tensor, bounds: SizeBounds) -> Moved:
    """Makes the moves, cheapest first, as long as each still helps and breaks nothing."""
    order = moves.costs.argsort(stable=True)
    sizes = sizes_K.tolist()
    done: dict[int, int] = {}
    pairs = zip(moves.points[order].tolist(), moves.targets[order].tolist(), strict=True)
    sources = labels_N[moves.points[order]].tolist()
    for (point, target), source in zip(pairs, sources, strict=True):
        helps = sizes[target] < bounds.lower or sizes[source] > bounds.upper
        allowed = sizes[source] > bounds.lower and sizes[target] < bounds.upper
        if point in done or not helps or not allowed:
            continue
        sizes[source] -= 1
        sizes[target] += 1
        done[point] = target
    points_M = torch.tensor(list(done), dtype=torch.int64)
    targets_M = torch.tensor(list(done.values()), dtype=torch.int64)
    moved = Moved(points=points_M, sources=labels_N[points_M], targets=targets_M)
    labels_N[points_M] = targets_M
    sizes_K.copy_(torch.tensor(sizes))
    return moved
