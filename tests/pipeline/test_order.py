"""The order: every id once, at any world size, from any start, the same for ever."""

from __future__ import annotations

import re

import numpy as np
import pytest

from coke.pipeline.order import order, permute

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64, 65, 97, 128, 255, 256, 257, 1009, 4096, 4097, 10_000]

#: Recorded once with the calls of test_the_order_is_pinned.
PINNED = [
    [5, 9, 1, 6, 7, 4, 2, 3, 0, 8],
    [9, 2, 6, 4, 3, 1, 5, 8, 7, 0],
    [1243363, 368588, 433798, 611954, 817945, 984885],
    [505318, 1134669, 981591, 1194596, 1237289, 607851, 71792, 537264],
]


@pytest.mark.parametrize("n", SIZES)
def test_every_id_comes_once(n: int) -> None:
    for seed, epoch in [(0, 0), (1, 0), (0, 1), (2**40, 799), (-3, 5)]:
        ids = order(seed, epoch, n)
        assert ids.dtype == np.int64
        assert np.array_equal(np.sort(ids), np.arange(n))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [1, 5, 23, 64])
def test_ranks_share_an_epoch_exactly_once(n: int, world: int) -> None:
    parts = [order(3, 1, n, world, rank) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("n", [64, 61])
def test_global_batches_are_the_same_at_every_world_size(n: int, world: int) -> None:
    batch = 16
    whole = order(0, 2, n)
    parts = [order(0, 2, n, world, rank) for rank in range(world)]
    for step in range(-(-n // batch)):
        local = batch // world
        union = np.concatenate([p[step * local : (step + 1) * local] for p in parts])
        assert set(union.tolist()) == set(whole[step * batch : (step + 1) * batch].tolist())


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_start_gives_the_identical_remainder(world: int) -> None:
    n = 29
    whole = order(7, 3, n)
    for start in range(n + 1):
        for rank in range(world):
            expected = whole[start:][rank::world]
            np.testing.assert_array_equal(order(7, 3, n, world, rank, start), expected)


def test_a_restart_may_change_the_number_of_ranks() -> None:
    whole, start = order(7, 3, 32), 12
    seen_by_two = [order(7, 3, 32, 2, rank)[: start // 2] for rank in range(2)]
    left_for_four = [order(7, 3, 32, 4, rank, start) for rank in range(4)]
    assert set(np.concatenate(seen_by_two).tolist()) == set(whole[:start].tolist())
    assert set(np.concatenate(left_for_four).tolist()) == set(whole[start:].tolist())


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    n = 1000
    runs = [order(seed, epoch, n) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]]
    for i, a in enumerate(runs):
        for b in runs[:i]:
            assert (a == b).sum() <= 8  # one is expected by chance


def test_the_order_is_pinned() -> None:
    """Recorded once: a run of any version can be resumed, and repeated, by any later one."""
    assert order(0, 0, 10).tolist() == PINNED[0]
    assert order(0, 1, 10).tolist() == PINNED[1]
    assert order(42, 7, 1_281_167)[:6].tolist() == PINNED[2]
    assert order(42, 7, 1_281_167, world=8, rank=3, start=1_281_100).tolist() == PINNED[3]


def test_single_positions_agree_with_the_whole_permutation() -> None:
    n = 1_281_167
    positions = np.array([0, 1, 640_000, n - 1])
    whole = permute(np.arange(n), seed=1, epoch=1, n=n)
    np.testing.assert_array_equal(permute(positions, seed=1, epoch=1, n=n), whole[positions])


def test_positions_say_nothing_about_ids() -> None:
    """Rank correlation, neighbours, parity and where an id comes over many epochs."""
    n = 10_000
    for seed in range(5):
        ids = order(seed, 0, n)
        assert abs(np.corrcoef(np.arange(n), ids)[0, 1]) < 0.04  # 4 standard errors
        assert abs(np.corrcoef(ids[:-1], ids[1:])[0, 1]) < 0.04
        assert abs(np.mean(ids % 2 == np.arange(n) % 2) - 0.5) < 0.02
        assert (np.diff(ids) == 1).sum() <= 8  # one is expected
    n = 20
    places = np.array([np.argsort(order(0, epoch, n)) for epoch in range(500)])
    counts = np.stack([(places == p).sum(axis=0) for p in range(n)])  # (position, id)
    assert ((counts - 25) ** 2 / 25).sum() < 361 + 5 * np.sqrt(2 * 361)  # chi square


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"world": 2, "rank": 2}, "rank is 2 in a world of 2; ranks are 0..1"),
        ({"world": 2, "rank": -1}, "rank is -1"),
        ({"world": 0}, "in a world of 0"),
        ({"start": 11}, "start is 11; positions of 10 images are 0..10"),
        ({"start": -1}, "start is -1"),
    ],
)
def test_impossible_positions_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        order(0, 0, 10, **wrong)
