"""Sizes made to fit: points moved where it costs least until every cluster keeps its bounds.

Prices (the duals) bring an assignment close to its bounds. Points come one by one, so some clusters
end a few points short. A pass looks for the points that could fill them at the least cost; these
few are then assigned anew, and moved through other clusters where that is cheaper.

Shapes: N points, B of a chunk, M candidates, K clusters, C columns: lists of candidates, L long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from coke.clustering.sizes import SizeBounds, typical_difference
from coke.clustering.transport import assigned

#: First row and similarities (B, K) of chunks of all points, as often as it is called.
Chunks = Callable[[], Iterable[tuple[int, Tensor]]]
_SPARE = 8  # candidates beyond the number of points that a cluster misses
_APART = 1e-4  # of the typical difference, by which equal costs are told apart
_SOME = 256  # points that tell how far similarities are apart
_ROUNDING = 1e-6  # of float32, relative


def repair(
    labels_N: Tensor,
    sizes_K: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    chunks: Chunks,
    similarities_of: Callable[[Tensor], Tensor],
    in_memory: int,
) -> None:
    """Moves points until every cluster keeps its bounds; changes labels and sizes in place.

    Args:
        labels_N: (N,) int64.
        sizes_K: (K,) int64, what ``labels_N`` counts to.
        duals_K: the prices of the assignment, at which moves are compared.
        bounds: feasible ones: K * lower <= N <= K * upper.
        chunks: called once per round.
        similarities_of: (M, K) of the points in rows (M,).
        in_memory: similarities that may be kept.
    """
    generator = torch.Generator().manual_seed(0)
    while bounds.violation(sizes_K) > 0:
        rows_M = _candidates(labels_N, sizes_K, duals_K, bounds, chunks, in_memory, generator)
        values_MK = similarities_of(rows_M)
        before_M = labels_N[rows_M]
        others_K = sizes_K - torch.bincount(before_M, minlength=len(sizes_K))
        found = assigned(
            values_MK.T.contiguous().numpy(),
            np.ones(len(rows_M), dtype=np.int64),
            duals_K.numpy(),
            bounds,
            rounding=_ROUNDING,
            others_K=others_K.numpy(),
        )
        labels_N[rows_M[torch.from_numpy(found.rows)]] = torch.from_numpy(found.labels)
        before, broken = _broken(sizes_K, bounds), _broken(torch.from_numpy(found.sizes), bounds)
        assert broken < before, "feasible bounds leave a move that helps"
        sizes_K.copy_(torch.from_numpy(found.sizes))


def _broken(sizes_K: Tensor, bounds: SizeBounds) -> float:
    """Points that clusters miss or have too many."""
    return float(
        ((bounds.lower - sizes_K).clamp(min=0) + (sizes_K - bounds.upper).clamp(min=0)).sum()
    )


def _candidates(
    labels_N: Tensor,
    sizes_K: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    chunks: Chunks,
    in_memory: int,
    generator: torch.Generator,
) -> Tensor:
    """Rows (M,) of the points with the cheapest moves: into each cluster that is short, and out of
    each that is too large."""
    most = max(in_memory // len(sizes_K), 1)
    short = (sizes_K < bounds.lower).nonzero().flatten()[: max(most // 2, 1)]
    large = (sizes_K > bounds.upper).nonzero().flatten()[: max(most // 2, 1)]
    missing = int(max((bounds.lower - sizes_K).max(), (sizes_K - bounds.upper).max()))
    length = max(min(missing + _SPARE, most // (2 * len(short) + len(large))), 1)
    costs_LC, rows_LC = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for first, values_BK in chunks():
        labels_B = labels_N[first : first + len(values_BK)]
        costs_BC = _costs(values_BK, labels_B, sizes_K, duals_K, bounds, short, large)
        # Equal costs are told apart at random: else all clusters would ask for the same points.
        noise_BC = torch.rand(costs_BC.shape, generator=generator)
        costs_BC = costs_BC + noise_BC.mul_(_APART * typical_difference(values_BK[:_SOME]))
        found = costs_BC.topk(min(length, len(costs_BC)), dim=0, largest=False)
        costs_LC = torch.cat([costs_LC.view(-1, costs_BC.shape[1]), found.values])
        rows_LC = torch.cat([rows_LC.view(-1, costs_BC.shape[1]), found.indices + first])
        costs_LC, kept_LC = costs_LC.topk(min(length, len(costs_LC)), dim=0, largest=False)
        rows_LC = rows_LC.gather(0, kept_LC)
    rows_M: Tensor = rows_LC[costs_LC.isfinite()].unique()
    return rows_M


def _costs(
    values_BK: Tensor,
    labels_B: Tensor,
    sizes_K: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    short_S: Tensor,
    large_L: Tensor,
) -> Tensor:
    """Costs (B, C) of moves: into short clusters, from all clusters and from those that have points
    to spare; and out of large ones, into the best that has room."""
    own_B1 = (values_BK.gather(1, labels_B.unsqueeze(1))[:, 0] + duals_K[labels_B]).unsqueeze(1)
    into_BS = own_B1 - (values_BK[:, short_S] + duals_K[short_S])
    into_BS[labels_B.unsqueeze(1) == short_S] = torch.inf
    spared_B1 = (sizes_K > bounds.lower)[labels_B].unsqueeze(1)
    costs = [into_BS, torch.where(spared_B1, into_BS, torch.inf)]
    if len(large_L):
        closed_K = ~(sizes_K < bounds.upper)
        best_B1 = (values_BK + duals_K.masked_fill(closed_K, -torch.inf)).amax(dim=1, keepdim=True)
        out_B1 = own_B1 - best_B1
        costs.append(torch.where(labels_B.unsqueeze(1) == large_L, out_B1, torch.inf))
    return torch.cat(costs, dim=1)
