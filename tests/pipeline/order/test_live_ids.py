"""Ids that have an image, counted by hand."""

from __future__ import annotations

import numpy as np

from coke.pipeline.order.live_ids import ContainerSpans, LiveIds


def test_the_ith_image_among_tombstones() -> None:
    live = LiveIds(8, np.array([0, 3, 4, 7]))  # images: 1, 2, 5, 6
    assert len(live) == 4
    assert live.at(np.array([0, 1, 2, 3, 1])).tolist() == [1, 2, 5, 6, 2]
    assert live.before(np.arange(9)).tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4]
    assert len(LiveIds(3)) == 3
    assert LiveIds(3).at(np.array([2, 0])).tolist() == [2, 0]
    assert LiveIds(3).before(np.array([0, 3])).tolist() == [0, 3]


def test_what_containers_hold_among_tombstones() -> None:
    live = LiveIds(8, np.array([0, 3, 4, 7]))  # images: 1, 2, 5, 6
    spans = ContainerSpans(live, [(0, 3), (3, 5), (5, 8)])
    assert spans.numbers.tolist() == [0, 2]  # container 1 holds tombstones only
    assert spans.firsts.tolist() == [0, 2]
    assert spans.counts.tolist() == [2, 2]


def test_a_list_of_ids_says_what_its_tombstones_say() -> None:
    dead, live = np.array([0, 3, 4, 7]), np.array([1, 2, 5, 6])
    one, other = LiveIds(8, dead), LiveIds(8, live_ids=live)
    assert len(one) == len(other)
    assert one.at(np.arange(4)).tolist() == other.at(np.arange(4)).tolist() == live.tolist()
    assert one.before(np.arange(9)).tolist() == other.before(np.arange(9)).tolist()
