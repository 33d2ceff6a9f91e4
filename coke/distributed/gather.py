"""Gathering the ranks' parts of a batch: every rank gets the whole batch.

Shapes: b rows of one rank, R ranks, B rows of all ranks, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def gather_batch(
    features_BD: Tensor, ids_B: Tensor, *, sizes: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Features and ids of all ranks, rank 0's rows first, then rank 1's, and so on.

    Every rank gets the same tensors. So the clustering does the same step on every rank, and its
    state need not be sent. The order of rows matters: the dual rule ``auto`` moves duals within a
    batch, and sums are rounded in the order of their terms. One process gives the same bits as R
    processes if its batches are the R parts in the order of ranks.

    Ranks may have different numbers of rows, 0 included, as in the last batch of an epoch.
    Without a process group, or in a group of one rank, the function returns its arguments.

    Args:
        features_BD: (b, D) float32.
        ids_B: (b,) int64, on the same device.
        sizes: number of rows of each rank, the same list on every rank. If None, the ranks exchange
            their sizes, and on a GPU the host waits for them.

    Returns: features (B, D) without a gradient, and ids (B,).

    Raises:
        ValueError: features and ids do not fit each other or ``sizes``.
    """
    if features_BD.ndim != 2 or ids_B.shape != features_BD.shape[:1]:
        raise ValueError(
            f"features have shape {tuple(features_BD.shape)}, ids {tuple(ids_B.shape)}; "
            "give (rows, dim) and (rows,)"
        )
    if features_BD.dtype != torch.float32 or ids_B.dtype != torch.int64:
        raise ValueError(
            f"features are {features_BD.dtype} and ids {ids_B.dtype}; give float32 and int64"
        )
    features_BD = features_BD.detach()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return features_BD, ids_B

    # One exchange instead of two: ids are sent as two more columns of 4 bytes. All columns are sent
    # as integers, so that no float operation changes the bits of a NaN.
    dim = features_BD.shape[1]
    packed = torch.cat(
        [
            features_BD.contiguous().view(torch.int32),
            ids_B.contiguous().view(torch.int32).view(-1, 2),
        ],
        dim=1,
    )
    sizes = _sizes(packed) if sizes is None else _checked(sizes, len(packed))
    padded = packed.new_zeros(max(sizes), dim + 2)
    padded[: len(packed)] = packed
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    rows = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    ids = rows[:, dim:].contiguous().view(torch.int64).view(-1)
    return rows[:, :dim].contiguous().view(torch.float32), ids


def _sizes(packed: Tensor) -> list[int]:
    """Number of rows of each rank."""
    mine = torch.tensor([len(packed)], device=packed.device)
    sizes = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, mine)
    counted: list[int] = torch.cat(sizes).tolist()
    return counted


def _checked(sizes: Sequence[int], mine: int) -> list[int]:
    rank, world = dist.get_rank(), dist.get_world_size()
    if len(sizes) != world or sizes[rank] != mine:
        raise ValueError(
            f"sizes is {list(sizes)}, but rank {rank} of {world} brings {mine} rows: give each "
            "rank's number of rows, in rank order"
        )
    return list(sizes)
