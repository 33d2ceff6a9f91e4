"""A global batch out of the ranks' parts, the same on every rank.

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

    Every rank gets the same tensors, so :meth:`Clustering.step` does the same on every rank and
    nothing else has to be sent. The order of rows matters to it: the dual rule ``auto`` moves duals
    within a batch, and sums are rounded in the order they are taken. One process equals R
    processes bit for bit where its batches are the ranks' parts one after the other.

    Ranks may bring different numbers of rows, none included: an epoch's last batch is ragged.
    Without a process group, or in a group of one, this rank's rows come back.

    Args:
        features_BD: (b, D) float32.
        ids_B: (b,) int64, on the same device.
        sizes: rows of each rank, where the caller knows them; every rank must give the same.
            Otherwise ranks ask each other, and on a GPU the host waits for the answer.

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

    # Ids travel beside the features, as two more columns of 4 bytes: one exchange, not two. Bits
    # are sent as integers, which nothing on the way may take for a NaN and change.
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
    """Rows that each rank brings."""
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
