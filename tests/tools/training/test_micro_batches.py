"""Pieces of a batch, and the global batch put together again."""

from __future__ import annotations

import torch

from coke.tools.training.micro_batches import (
    global_batch,
    last_piece,
    micro_batch_rows,
    micro_batches,
    rows_by_rank,
    weight_of,
)


def test_pieces_follow_one_another_and_the_last_is_short() -> None:
    views = [torch.arange(5).view(5, 1), torch.arange(5, 10).view(5, 1)]
    pieces = list(micro_batches(views, [torch.arange(5)], rows=2))
    assert [[v.flatten().tolist() for v in views] for views, _ in pieces] == [
        [[0, 1], [5, 6]],
        [[2, 3], [7, 8]],
        [[4], [9]],
    ]
    assert [targets[0].tolist() for _, targets in pieces] == [[0, 1], [2, 3], [4]]


def test_every_rank_takes_as_many_pieces() -> None:
    """Of 7 images, ranks 0 to 2 have 3, 2, 2: rank 0's third piece is the others' empty one."""
    for rows in (3, 2):
        views = [torch.zeros(rows, 1)]
        pieces = list(micro_batches(views, [], rows=1, sizes=(3, 2, 2)))
        assert [len(piece[0]) for piece, _ in pieces] == [1, 1, rows - 2]


def test_the_last_piece_of_every_rank() -> None:
    """Of 7 images, ranks 0 to 2 have 3, 2, 2. In pieces of 2, the last has rank 0's third."""
    assert last_piece((3, 2, 2), 2) == (slice(2, 4), [1, 0, 0])
    assert last_piece((3, 2, 2), 3) == (slice(0, 3), [3, 2, 2])
    assert last_piece((8,), 4) == (slice(4, 8), [4])


def test_a_piece_weighs_what_its_loss_is_a_mean_over() -> None:
    assert weight_of([torch.tensor([3, -1, 0]), torch.tensor([1, -1, 1])]) == 2
    assert weight_of([torch.eye(3, 7)]) == 3  # soft labels
    assert weight_of([torch.eye(3, 7)[:, 1:]]) == 2  # one of them has none
    assert weight_of([torch.tensor([], dtype=torch.int64)]) == 0
    assert micro_batch_rows(64, 4) == 16


def test_rows_come_back_in_the_order_of_one_rank() -> None:
    by_rank = torch.tensor([0, 3, 6, 1, 4, 2, 5])  # of rank 0, then 1, then 2
    assert by_rank[rows_by_rank(7, 3)].tolist() == list(range(7))
    features, ids = global_batch(torch.ones(2, 3), torch.tensor([4, 9]))
    assert features.shape == (2, 3) and ids.tolist() == [4, 9]
