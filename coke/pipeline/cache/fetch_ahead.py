"""Containers of a remote data set, fetched by threads in the sequence the order wants them.

The threads never stop the epoch: what they cannot fetch is an error of the batch that needs it,
and a wait in which nothing moves ends in one too.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from coke.files.lock import give_back
from coke.pipeline.cache.container_cache import ContainerCache
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.loading.reader import Mapped, allow_open_files
from coke.pipeline.order.order import EpochOrder, LiveIds, Window
from coke.pipeline.remote.remote import WrongContent

THREADS = 4
STALL_S = 300.0  # a wait for one container, in which not a byte arrives, that ends in an error
_LOOK_S = 0.1


class _Queue:
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


class FetchedContainers:
    """The containers of a remote data set; see :class:`coke.pipeline.loading.reader.Containers`.

    Those of the windows that are being read are held in the cache, those ahead of them are merely
    the last that would be evicted. So ranks of a host can always go on, however far one of them
    has fetched ahead.

    Args:
        index: the data set.
        limit: bytes the cache may take.
        threads: downloads at a time.
        stall_s: seconds of waiting without a byte after which the wait is an error.
    """

    def __init__(
        self, index: ImageIndex, *, limit: int, threads: int = THREADS, stall_s: float | None = None
    ) -> None:
        assert index.remote is not None
        self._index = index
        self._containers = index.manifest.containers
        self._limit = limit
        self._stall_s = STALL_S if stall_s is None else stall_s
        self._cache = ContainerCache(index.remote, index.folder, limit)
        self._queue = _Queue(self._containers, limit)
        self._held: dict[int, int] = {}  # file descriptors
        self._maps: dict[int, Mapped] = {}
        self._window_place: dict[int, int] = {}  # of a container: where its window begins
        self._base = 0
        allow_open_files(2 * len(self._containers))
        for _ in range(threads):
            arguments = (self._cache, self._containers, self._queue)
            # Daemons, so that a download never keeps a program from ending.
            threading.Thread(target=_fetch, args=arguments, daemon=True).start()
        weakref.finalize(self, _close, self._queue, self._held)

    def follow(self, windows: Sequence[Window]) -> None:
        sequence: list[int] = []
        self._window_place = {}
        for window in windows:
            self._window_place |= dict.fromkeys(window.containers, len(sequence))
            sequence += window.containers
        self._base = 0
        self._release(set(self._held))
        self._queue.follow(sequence)

    def maps(self, numbers: Collection[int]) -> Mapping[int, Mapped]:
        places = [self._window_place[n] for n in numbers if n in self._window_place]
        if places and min(places) > self._base:
            self._base = min(places)
            passed = {n for n in self._held if self._window_place.get(n, -1) < self._base}
            self._release(passed - set(numbers))
            self._queue.advance(self._base)
        missing = [n for n in numbers if n not in self._held]
        for number in missing:
            held = self._cache.hold(self._containers[number])
            if held is not None:
                self._map(number, held)
        missing = [n for n in missing if n not in self._held]
        self._queue.hurry(missing)
        for number in missing:
            self._map(number, self._wait_for(number))
        return self._maps

    def _map(self, number: int, held: int) -> None:
        self._held[number] = held
        self._maps[number] = Mapped.of(held)

    def _wait_for(self, number: int) -> int:
        container = self._containers[number]
        seen, since = None, time.monotonic()
        while True:
            held = self._cache.hold(container)
            if held is not None:
                self._queue.had(number)
                return held
            failure = self._queue.wait_for(number)
            if failure is not None:
                raise ValueError(self._cannot_fetch(number, failure)) from failure
            # Another rank may have evicted it between its arrival and our look.
            self._queue.hurry([number])
            busy = self._queue.busy()
            arrived = [_size(self._cache.part(self._containers[n])) for n in (number, *busy)]
            if (busy, arrived) != seen:
                seen, since = (busy, arrived), time.monotonic()
            elif time.monotonic() - since > self._stall_s:
                raise ValueError(self._stalled(container, arrived[0], number in busy))

    def _cannot_fetch(self, number: int, failure: Exception) -> str:
        container = self._containers[number]
        what = f"container {container.name} (ids {container.start}..{container.stop - 1})"
        cut = ""
        if isinstance(failure, WrongContent) and failure.size < container.size:
            cut = f"; {self._index.describe_cut(number, failure.size)}"
        elif isinstance(failure, FileNotFoundError):
            cut = f"; {self._index.describe_cut(number, 0)}"
        return f"{what} cannot be fetched: {failure}{cut}"

    def _stalled(self, container: Container, arrived: int, taken_up: bool) -> str:
        if taken_up and arrived < 0:
            return (
                f"container {container.name} found no room in the cache {self._index.folder.parent}"
                f" for {self._stall_s:.0f} s: other processes hold what fills it "
                f"({self._limit:,} bytes); set a larger cache_gb, or give each run its cache_dir"
            )
        return (
            f"container {container.name} of {self._index.location}: nothing arrived for "
            f"{self._stall_s:.0f} s, after {max(arrived, 0):,} of {container.size:,} bytes"
        )

    def _release(self, numbers: Collection[int]) -> None:
        for number in numbers:
            give_back(self._held.pop(number))
            del self._maps[number]  # views into it stay good for as long as someone has them


def _fetch(cache: ContainerCache, containers: Sequence[Container], queue: _Queue) -> None:
    """A thread: fetches until the queue is closed."""
    while (number := queue.take()) is not None:
        failure: Exception | None = None

        def keep(number: int = number) -> set[Path]:
            return {cache.path(containers[n]) for n in queue.kept_for(number)}

        try:
            cache.ensure(containers[number], keep=keep, stop=queue.stop)
        except Exception as error:  # the thread that needs the container raises it
            failure = error
        queue.done(number, failure)


def _close(queue: _Queue, held: dict[int, int]) -> None:
    """Ends the threads, and gives back what a reader that is gone still holds in the cache."""
    queue.close()
    for descriptor in held.values():
        give_back(descriptor)
    held.clear()


def _size(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def check_cache(index: ImageIndex, order: EpochOrder, *, in_flight: int, limit: int) -> None:
    """Refuses an order that needs more containers at a time than the cache may hold.

    The ranks of a host share the cache and go through the order side by side: ``in_flight``
    images lie between the first that any of them still reads and the last that any reads already.

    Raises:
        ValueError: the limit is too small; the message says what would do.
    """
    windows = order.windows(0)
    if not windows:
        return
    containers = index.manifest.containers
    sizes = sorted((c.size for c in containers), reverse=True)
    if len(windows) == 1:
        together = len(windows[0].containers)
    else:
        # Which containers share a window changes by epoch: the smallest and largest there can be.
        images = sorted(_images(index))
        smallest = sum(images[: min(len(w.containers) for w in windows)])
        at_once = 1 + -(-(in_flight - 1) // max(smallest, 1))
        together = min(at_once * order.containers_at_once, sum(len(w.containers) for w in windows))
    needed = sum(sizes[:together])
    if needed > limit:
        remedy = "order=blocks, " if len(windows) == 1 and len(windows[0].containers) > 1 else ""
        raise ValueError(
            f"the cache may hold {limit / 1e9:,.3g} GB, but this order of {index.location} reads "
            f"{together} containers of up to {needed / 1e9:,.3g} GB at a time: use {remedy}"
            f"a smaller window, or cache_gb={1.01 * needed / 1e9:.3g} or more"
        )


def _images(index: ImageIndex) -> list[int]:
    """Images of each container that has any."""
    live, containers = LiveIds(len(index), index.dead_ids), index.manifest.containers
    starts = live.before(np.array([c.start for c in containers]))
    stops = live.before(np.array([c.stop for c in containers]))
    return [count for count in (stops - starts).tolist() if count]
