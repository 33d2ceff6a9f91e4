"""Which container comes next, by hand: four containers of 10 bytes, and room for 25."""

from __future__ import annotations

import threading

import pytest

from coke.pipeline.cache.fetch_queue import FetchQueue
from coke.pipeline.dataset.manifest import Container


@pytest.fixture
def queue() -> FetchQueue:
    """The epoch reads containers 2, 0, 3, 1."""
    containers = [
        Container(name=f"{n}.tar", size=10, sha256="", start=n, stop=n + 1) for n in range(4)
    ]
    made = FetchQueue(containers, 25)
    made.follow([2, 0, 3, 1])
    return made


def test_containers_are_fetched_ahead_as_far_as_they_fit(queue: FetchQueue) -> None:
    assert [queue.take(), queue.take()] == [2, 0]
    assert queue.busy() == [0, 2]
    assert queue.kept_for(0) == [2, 0]
    queue.done(2, None)
    queue.done(0, None)
    queue.advance(1)  # container 2 is not read again
    assert queue.take() == 3
    assert queue.kept_for(3) == [0, 3]


def test_a_container_that_the_epoch_waits_for_comes_first(queue: FetchQueue) -> None:
    queue.hurry([1])
    assert [queue.take(), queue.take()] == [1, 2]
    assert queue.kept_for(1) == []  # it may evict what is merely fetched ahead
    queue.arrived(1)
    assert queue.kept_for(1) == [2]


def test_a_failure_counts_only_while_the_epoch_waits(queue: FetchQueue) -> None:
    broken = ValueError("gone")
    assert queue.take() == 2
    queue.done(2, broken)
    assert queue.wait_for(2) is None
    queue.hurry([2])
    assert queue.take() == 2
    queue.done(2, broken)
    assert queue.wait_for(2) is broken
    assert queue.wait_for(2) is None  # it is told once


def test_a_new_epoch_forgets_the_one_before(queue: FetchQueue) -> None:
    queue.hurry([1])
    queue.follow([3, 2])
    assert [queue.take(), queue.take()] == [3, 2]


def test_closing_ends_threads_that_wait(queue: FetchQueue) -> None:
    assert [queue.take(), queue.take()] == [2, 0]
    found: list[int | None] = []
    thread = threading.Thread(target=lambda: found.append(queue.take()))
    thread.start()
    queue.close()
    thread.join(60)
    assert found == [None]
