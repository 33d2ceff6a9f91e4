"""Which container is downloaded next: those the epoch waits for, then those it will read next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from itertools import accumulate

from coke.pipeline.dataset.manifest import Container

_LOOK_S = 0.1  # seconds that a wait lasts at most, before the waiter looks at the disk again


class FetchQueue:
    """What the threads are to fetch next; every method may be called by any thread."""

    def __init__(self, containers: Sequence[Container], limit: int) -> None:
        self._sizes = [container.size for container in containers]
        self._limit = limit
        self._changed = threading.Condition()
        self.stop = threading.Event()
        self._sequence: list[int] = []  # of the epoch
        self._ends: list[int] = [0]  # bytes of the sequence up to each of its places
        self._base = 0  # place of the first container that may still be read
        self._next = 0  # place of the next one to fetch ahead
        self._wanted: set[int] = set()  # the epoch waits for them
        self._urgent: deque[int] = deque()  # wanted, and nobody is fetching them
        self._busy: set[int] = set()
        self._failures: dict[int, Exception] = {}

    def follow(self, sequence: list[int]) -> None:
        with self._changed:
            self._sequence = sequence
            self._ends = [0, *accumulate(self._sizes[number] for number in sequence)]
            self._base = self._next = 0
            self._wanted.clear()
            self._urgent.clear()
            self._failures.clear()
            self._changed.notify_all()

    def advance(self, place: int) -> None:
        """Containers before this place of the sequence will not be read any more."""
        with self._changed:
            self._base = place
            self._next = max(self._next, place)
            self._changed.notify_all()

    def take(self) -> int | None:
        """The next container to fetch, when there is one; None at the end."""
        with self._changed:
            while not self.stop.is_set():
                if self._urgent:
                    return self._start(self._urgent.popleft())
                # Ahead only as far as all of it fits: more would evict what is needed sooner.
                while self._next < len(self._sequence) and (
                    self._ends[self._next + 1] - self._ends[self._base] <= self._limit
                ):
                    self._next += 1
                    number = self._sequence[self._next - 1]
                    if number not in self._busy:
                        return self._start(number)
                self._changed.wait()
            return None

    def _start(self, number: int) -> int:
        self._busy.add(number)
        return number

    def done(self, number: int, failure: Exception | None) -> None:
        """A failure counts only where the epoch waits: what is not needed yet is tried again."""
        with self._changed:
            self._busy.discard(number)
            if failure is not None and number in self._wanted:
                self._failures[number] = failure
            self._changed.notify_all()

    def kept_for(self, number: int) -> list[int]:
        """Containers that must not be evicted to make room for this one."""
        with self._changed:
            return [] if number in self._wanted else self._sequence[self._base : self._next]

    def hurry(self, numbers: Collection[int]) -> None:
        """Puts containers before all others."""
        with self._changed:
            self._wanted.update(numbers)
            for number in numbers:
                if number not in self._busy and number not in self._urgent:
                    self._urgent.append(number)
            self._changed.notify_all()

    def wait_for(self, number: int) -> Exception | None:
        """Waits for a moment. Returns why the container cannot be had, if so."""
        with self._changed:
            if number not in self._failures:
                self._changed.wait(_LOOK_S)
            return self._failures.pop(number, None)

    def had(self, number: int) -> None:
        with self._changed:
            self._wanted.discard(number)

    def busy(self) -> list[int]:
        """Containers that a thread is fetching, or wants to: there may be no room for them."""
        with self._changed:
            return sorted(self._busy)

    def close(self) -> None:
        self.stop.set()
        with self._changed:
            self._changed.notify_all()
