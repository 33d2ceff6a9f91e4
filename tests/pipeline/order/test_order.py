"""The order: every id once, at any world size, from any start, the same for ever."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from coke.pipeline.order.epoch_order import EpochOrder
from coke.pipeline.order.order import epoch_order, order
from coke.pipeline.order.permutation import permute

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64, 65, 97, 128, 255, 256, 257, 1009, 4096, 4097, 10_000]

#: Containers of 10 ids but for the last, and ids without an image: two in the first container,
#: all of the third, the last of all.
SPANS = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 57)]
DEAD = np.array([0, 5, *range(20, 30), 56])
LIVE = sorted(set(range(57)) - set(DEAD.tolist()))
MODES = ["global", "blocks", "sequential"]
IMAGENET = [(start, min(start + 2000, 1_281_167)) for start in range(0, 1_281_167, 2000)]

#: Recorded once with the calls of test_the_order_is_pinned.
PINNED = [
    [5, 9, 1, 6, 7, 4, 2, 3, 0, 8],
    [9, 2, 6, 4, 3, 1, 5, 8, 7, 0],
    [1243363, 368588, 433798, 611954, 817945, 984885],
    [505318, 1134669, 981591, 1194596, 1237289, 607851, 71792, 537264],
    [432187, 367115, 1185929, 883853, 570637, 497203],
    [396875, 1013970, 446212, 644640, 198422, 396123],
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
    blocks = epoch_order("blocks", 1_281_167, IMAGENET, seed=42, window=16)
    assert blocks.ids(7, np.arange(6)).tolist() == PINNED[4]
    assert blocks.ids(7, np.arange(1_281_161, 1_281_167)).tolist() == PINNED[5]


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
def test_impossible_positions_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        order(0, 0, 10, **wrong)


def of_mode(mode: str, *, seed: int = 0, window: int = 2, dead: bool = True) -> EpochOrder:
    return epoch_order(mode, 57, SPANS, seed=seed, window=window, dead_ids=DEAD if dead else None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [1, 2, 3, 100])
@pytest.mark.parametrize("dead", [False, True])
def test_every_image_once_and_never_a_tombstone(mode: str, window: int, dead: bool) -> None:
    for seed, epoch in [(0, 0), (1, 0), (0, 1), (2**40, 799)]:
        built = of_mode(mode, seed=seed, window=window, dead=dead)
        ids = built.ids(epoch, np.arange(len(built)))
        assert ids.dtype == np.int64
        assert sorted(ids.tolist()) == (LIVE if dead else list(range(57)))
        if mode == "sequential":
            assert ids.tolist() == sorted(ids.tolist())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [1, 2, 4, 6, 50])
def test_windows_say_which_containers_positions_need(mode: str, window: int) -> None:
    built = of_mode(mode, window=window)
    for epoch in range(3):
        windows = built.windows(epoch)
        assert [w.start for w in windows] == [0, *(w.stop for w in windows[:-1])]
        assert windows[-1].stop == len(built) == len(LIVE)
        numbers = [number for w in windows for number in w.containers]
        assert sorted(numbers) == [0, 1, 3, 4, 5]  # nobody fetches a container without an image
        assert max(len(w.containers) for w in windows) == built.containers_at_once
        for w in windows:
            held = {i for c in w.containers for i in range(*SPANS[c])} & set(LIVE)
            assert set(built.ids(epoch, np.arange(w.start, w.stop)).tolist()) == held
    if mode == "blocks":
        assert built.containers_at_once == min(window, 5) - (window == 4)  # 5 in windows of 3 and 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_every_step_of_every_order_at_any_world_size(mode: str, world: int) -> None:
    """The same global batches, and from every step on, on any number of ranks, the same rest."""
    batch, epoch = 8, 3
    options: dict[str, Any] = {"mode": mode, "spans": SPANS, "window": 2, "dead_ids": DEAD}
    whole = order(5, epoch, 57, **options).tolist()
    batches = [set(whole[p : p + batch]) for p in range(0, len(whole), batch)]
    for step in range(len(batches) + 1):
        start = min(step * batch, len(whole))
        parts = [order(5, epoch, 57, world, r, start, **options) for r in range(world)]
        local = batch // world
        rest = [
            {i for part in parts for i in part[s * local : (s + 1) * local].tolist()}
            for s in range(len(batches) - step)
        ]
        assert rest == batches[step:]
        for r, part in enumerate(parts):
            assert part.tolist() == whole[start:][r::world]


def test_single_positions_of_blocks_agree_with_the_whole_epoch() -> None:
    built = epoch_order("blocks", 1_281_167, IMAGENET, seed=1, window=8)
    whole = built.ids(4, np.arange(len(built)))
    assert np.array_equal(np.sort(whole), np.arange(1_281_167))
    positions = np.random.default_rng(0).integers(0, len(built), 500)
    fresh = epoch_order("blocks", 1_281_167, IMAGENET, seed=1, window=8)
    np.testing.assert_array_equal(fresh.ids(4, positions), whole[positions])
    first = positions[0]
    assert fresh.ids(4, positions[:1]).tolist() == [whole[first]]


def test_blocks_shuffle_containers_and_the_images_of_a_window() -> None:
    spans = [(i * 100, (i + 1) * 100) for i in range(64)]
    built = epoch_order("blocks", 6400, spans, window=8)
    windows = [w.containers for epoch in range(20) for w in built.windows(epoch)]
    assert len(set(windows)) == len(windows)  # never twice the same company
    few = epoch_order("blocks", 1600, spans[:16], window=8)
    firsts = np.array([few.windows(epoch)[0].containers[0] for epoch in range(16 * 25)])
    counts = np.bincount(firsts, minlength=16)
    assert ((counts - 25) ** 2 / 25).sum() < 15 + 5 * np.sqrt(2 * 15)  # chi square
    ids = built.ids(0, np.arange(800))
    place = np.argsort(np.argsort(ids))  # the rank of each id within the first window
    assert abs(np.corrcoef(np.arange(800), place)[0, 1]) < 0.14  # 4 standard errors
    again = built.ids(1, np.arange(800))
    assert (ids == again).sum() <= 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "random"}, "order is 'random'; choose one of global, blocks, sequential"),
        ({"mode": "blocks", "window": 0}, "window is 0; blocks of at least 1 container"),
        ({"spans": [(0, 4), (5, 10)]}, "containers answer for 9 images, the index holds 10"),
        ({"spans": [(0, 6), (5, 10)]}, "containers answer for 11 images, the index holds 10"),
    ],
)
def test_impossible_orders_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        order(0, 0, 10, **wrong)


@pytest.mark.parametrize("mode", MODES)
def test_a_data_set_of_tombstones_has_an_empty_epoch(mode: str) -> None:
    built = epoch_order(mode, 3, [(0, 3)], dead_ids=np.arange(3))
    assert len(built) == 0
    assert built.ids(0, np.arange(0)).tolist() == []
    assert [w for w in built.windows(0) if w.containers] == []
