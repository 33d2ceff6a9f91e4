"""Which container is downloaded next: one that the epoch waits for, or else one it reads soon."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from itertools import accumulate

from coke.pipeline.dataset.manifest import Container

_LOOK_S = 0.1  # longest wait in seconds, before the waiter looks at the disk again


class FetchQueue:
    """Hands containers to downloading threads; any thread may call any method.

    Args:
        containers: all containers of the data set.
        limit: bytes that containers fetched ahead may take together.

    Attributes:
        stop: is set when the queue is closed.
    """

    def __init__(self, containers: Sequence[Container], limit: int) -> None:
        self._sizes = [container.size for container in containers]
        self._limit = limit
        self._changed = threading.Condition()
        self.stop = threading.Event()
        self._sequence: list[int] = []  # containers in the sequence the epoch reads them
        self._ends: list[int] = [0]  # bytes of the sequence before each of its places
        self._base = 0  # place of the first container that may still be read
        self._next = 0  # place of the next one to fetch ahead
        self._wanted: set[int] = set()  # containers that the epoch waits for
        self._urgent: deque[int] = deque()  # wanted containers that no thread fetches yet
        self._busy: set[int] = set()  # containers that a thread fetches
        self._failures: dict[int, Exception] = {}

    def follow(self, sequence: list[int]) -> None:
        """Begins an epoch that reads containers in this sequence."""
        with self._changed:
            self._sequence = sequence
            self._ends = [0, *accumulate(self._sizes[number] for number in sequence)]
            self._base = self._next = 0
            self._wanted.clear()
            self._urgent.clear()
            self._failures.clear()
            self._changed.notify_all()

    def advance(self, place: int) -> None:
        """Containers before this place of the sequence will not be read again."""
        with self._changed:
            self._base = place
            self._next = max(self._next, place)
            self._changed.notify_all()

    def take(self) -> int | None:
        """Waits for the next container to fetch; None when the queue is closed."""
        with self._changed:
            while not self.stop.is_set():
                if self._urgent:
                    return self._start(self._urgent.popleft())
                # Not further ahead than fits: more would evict containers that are read sooner.
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
        """A thread has finished. Failures count if the epoch waits; others are tried again."""
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
        """The epoch waits for these containers: they come before all others."""
        with self._changed:
            self._wanted.update(numbers)
            for number in numbers:
                if number not in self._busy and number not in self._urgent:
                    self._urgent.append(number)
            self._changed.notify_all()

    def wait_for(self, number: int) -> Exception | None:
        """Waits for a change, a moment at most. Returns the failure of the container, if any."""
        with self._changed:
            if number not in self._failures:
                self._changed.wait(_LOOK_S)
            return self._failures.pop(number, None)

    def arrived(self, number: int) -> None:
        """The epoch has this container."""
        with self._changed:
            self._wanted.discard(number)

    def busy(self) -> list[int]:
        """Containers that a thread fetches, or waits to fetch until there is room."""
        with self._changed:
            return sorted(self._busy)

    def close(self) -> None:
        """Ends the threads."""
        self.stop.set()
        with self._changed:
            self._changed.notify_all()
