"""Orders of a subset, beside a list that is made by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from coke.pipeline.order.live_ids import LiveIds
from coke.pipeline.order.order import epoch_order
from coke.pipeline.order.permutation import permute

N = 57
SPANS = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 57)]
#: Containers 1 and 4 hold no chosen id.
CHOSEN = np.array([0, 3, 9, 20, 21, 22, 29, 31, 38, 50, 56])


@pytest.mark.parametrize("mode", ["global", "blocks", "sequential"])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_chosen_id_once_and_from_any_position(mode: str, epoch: int) -> None:
    live = LiveIds(N, live_ids=CHOSEN)
    order = epoch_order(mode, N, SPANS, seed=4, window=2, live=live)
    m = len(CHOSEN)
    assert len(order) == m
    whole = order.ids(epoch, np.arange(m))
    assert sorted(whole.tolist()) == CHOSEN.tolist()
    for start in range(m + 1):
        for world in (1, 2, 3):
            parts = [order.ids(epoch, np.arange(start + r, m, world)) for r in range(world)]
            assert [p.tolist() for p in parts] == [whole[start + r :: world].tolist()
                                                   for r in range(world)]  # fmt: skip
    # The same as with all other ids as tombstones, which is another implementation.
    dead = np.setdiff1d(np.arange(N), CHOSEN)
    other = epoch_order(mode, N, SPANS, seed=4, window=2, dead_ids=dead)
    np.testing.assert_array_equal(other.ids(epoch, np.arange(m)), whole)
    assert list(order.windows(epoch)) == list(other.windows(epoch))


def test_the_global_order_is_a_permutation_of_the_sorted_ids() -> None:
    order = epoch_order("global", N, SPANS, seed=4, live=LiveIds(N, live_ids=CHOSEN))
    by_hand = [CHOSEN[p] for p in permute(np.arange(11), seed=4, epoch=3, n=11)]
    assert order.ids(3, np.arange(11)).tolist() == by_hand


@pytest.mark.parametrize("mode", ["global", "blocks", "sequential"])
def test_containers_without_a_chosen_id_are_in_no_window(mode: str) -> None:
    order = epoch_order(mode, N, SPANS, seed=4, window=2, live=LiveIds(N, live_ids=CHOSEN))
    container_of = {i: c for c, (a, b) in enumerate(SPANS) for i in range(a, b)}
    windows = order.windows(2)
    assert sorted(c for w in windows for c in w.containers) == [0, 2, 3, 5]
    assert [w.start for w in windows[1:]] == [w.stop for w in windows[:-1]]
    assert windows[0].start == 0 and windows[-1].stop == len(CHOSEN)
    for w in windows:
        ids = order.ids(2, np.arange(w.start, w.stop)).tolist()
        assert {container_of[i] for i in ids} <= set(w.containers)
