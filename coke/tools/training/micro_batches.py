"""Gradient accumulation: a batch in pieces, and the global batch of all ranks.

Shapes: b rows of this rank, B rows of all ranks, D feature dimension, K clusters of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coke.distributed.gather import gather_batch
from coke.distributed.process_group import world_size
from coke.model.loss import has_label


def micro_batches(
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    rows: int,
    sizes: Sequence[int] | None = None,
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Views and targets in pieces of ``rows`` rows, the last one shorter.

    Args:
        views: (b, 3, S, S) each.
        targets: (b,) or (b, K) each.
        sizes: rows of every rank; this rank is alone if None. All ranks take the same number of
            pieces, since each piece's batch norm and gradients are averaged over ranks. A rank
            without rows left gets an empty piece.
    """
    longest = max(sizes or [len(views[0])])
    for first in range(0, longest, rows):
        piece = slice(first, first + rows)
        yield [view[piece] for view in views], [target[piece] for target in targets]


def micro_batch_rows(batch_size: int, accumulate: int) -> int:
    """Rows of this rank in one piece of a full batch."""
    return batch_size // (accumulate * world_size())


def last_piece(sizes: Sequence[int], rows: int) -> tuple[slice, list[int]]:
    """Which rows of its part each rank has in the last of its pieces, and how many they are.

    Args:
        sizes: rows of every rank.
        rows: see :func:`micro_batches`.
    """
    first = (max(sizes) - 1) // rows * rows
    return slice(first, first + rows), [min(max(size - first, 0), rows) for size in sizes]


def weight_of(targets: Sequence[Tensor]) -> Tensor:
    """Number of rows that have a label: the loss is their mean."""
    return has_label(targets[0]).sum().float()


def global_batch(
    features_BD: Tensor, ids_B: Tensor, sizes: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Features and ids of all ranks, in the order that one rank alone would have.

    Rank r of R has the rows r, r + R, r + 2R, ... of the global batch. Clustering depends on the
    order: duals move within a batch, and sums are rounded.

    Args:
        sizes: rows of each rank; exchanged first when None.
    """
    if world_size() == 1:
        return features_BD, ids_B
    gathered_BD, ids = gather_batch(features_BD, ids_B, sizes=sizes)
    rows = rows_by_rank(len(ids), world_size(), ids.device)
    return gathered_BD[rows], ids[rows]


def rows_by_rank(n: int, world: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions (n,) of a global batch's rows in the rows of all ranks, one rank after the other.

    Computed on ``device``: a copy from the host would make the host wait.
    """
    row = torch.arange(n, device=device)
    rank, place = row % world, row // world
    before = rank * (n // world) + rank.clamp(max=n % world)  # rows of the ranks before
    return before + place
