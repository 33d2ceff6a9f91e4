"""Containers of a remote data set, downloaded by threads in the sequence the order reads them.

The threads never stop the epoch. A container that cannot be fetched is an error of the batch that
needs it. A wait during which nothing arrives ends in an error, too.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from coke.files.lock import give_back
from coke.pipeline.cache.container_cache import ContainerCache
from coke.pipeline.cache.fetch_queue import FetchQueue
from coke.pipeline.containers.mapped import Mapped, allow_open_files
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.order.epoch_order import Window
from coke.pipeline.remote.remote import WrongContent

THREADS = 4
STALL_S = 300.0  # seconds without a byte, after which a wait for a container is an error


class FetchedContainers:
    """The :class:`~coke.pipeline.containers.mapped.MappedContainers` of a remote data set.

    Containers of the windows that are being read are held in the cache. Containers fetched ahead
    are not held, merely evicted last. So the ranks of a host can always go on, however far one of
    them has fetched ahead.

    Args:
        index: the data set.
        limit: bytes the cache may take.
        threads: downloads at a time.
        stall_s: seconds without a byte, after which a wait is an error; :data:`STALL_S` if None.
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
        self._queue = FetchQueue(self._containers, limit)
        self._held: dict[int, int] = {}  # file descriptor of each held container
        self._maps: dict[int, Mapped] = {}
        # Place of the first container of each container's window, in the sequence of the epoch.
        self._window_place: dict[int, int] = {}
        self._base = 0  # place of the first container that may still be read
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
                self._queue.arrived(number)
                return held
            failure = self._queue.wait_for(number)
            if failure is not None:
                raise ValueError(self._cannot_fetch(number, failure)) from failure
            # Another rank may have evicted it since it arrived: ask for it again.
            self._queue.hurry([number])
            busy = self._queue.busy()
            arrived = [_size(self._cache.part(self._containers[n])) for n in (number, *busy)]
            if (busy, arrived) != seen:
                seen, since = (busy, arrived), time.monotonic()
            elif time.monotonic() - since > self._stall_s:
                raise ValueError(self._stalled(container, arrived[0], number in busy))

    def _cannot_fetch(self, number: int, failure: Exception) -> str:
        container = self._containers[number]
        name = f"container {container.name} (ids {container.start}..{container.stop - 1})"
        cut = ""
        if isinstance(failure, WrongContent) and failure.size < container.size:
            cut = f"; {self._index.describe_cut(number, failure.size)}"
        elif isinstance(failure, FileNotFoundError):
            cut = f"; {self._index.describe_cut(number, 0)}"
        return f"{name} cannot be fetched: {failure}{cut}"

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
            del self._maps[number]  # arrays that were handed out keep the map alive


def _fetch(cache: ContainerCache, containers: Sequence[Container], queue: FetchQueue) -> None:
    """Runs in a thread: fetches until the queue is closed."""
    while (number := queue.take()) is not None:
        failure: Exception | None = None

        def keep(number: int = number) -> set[Path]:
            return {cache.path(containers[n]) for n in queue.kept_for(number)}

        try:
            cache.ensure(containers[number], keep=keep, stop=queue.stop)
        except Exception as error:  # the thread that needs the container raises it
            failure = error
        queue.done(number, failure)


def _close(queue: FetchQueue, held: dict[int, int]) -> None:
    """Ends the threads of a reader that is gone, and releases the containers it held."""
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
