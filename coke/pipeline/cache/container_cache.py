"""Containers of remote data sets on the local disk: a size limit, shared by the ranks of a host.

    <cache>/cache.lock                                   held while room is made
    <cache>/<data set>/manifest.json, index.npy, ...     fetched once, not counted
    <cache>/<data set>/containers/images-00000.tar       complete and checked: the name says so
    <cache>/<data set>/containers/images-00003.tar.<size>.part      being downloaded

Processes agree by locks, which the kernel takes back when a process dies, however it dies. A
container in use has a shared lock, a part an exclusive one. So a file without a lock may be
removed: a container to make room, the least recently used first; a part because its download was
killed. A part counts with its final size from the start, so the cache keeps its limit while several
processes fill it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coke.files import lock
from coke.files.durable import flush
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.remote.remote import Remote

POLL_S = 0.05  # seconds between two looks for room, or for the download of another process


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A file that counts towards the limit.

    Attributes:
        size: bytes; of a part, those of the whole container.
        used_ns: time of its last use.
    """

    path: Path
    size: int
    used_ns: int


class ContainerCache:
    """The containers of one remote data set, as many as fit.

    Args:
        remote: the remote data set.
        folder: the data set's folder in the cache.
        limit: bytes that all containers of all data sets in the cache may take together.
    """

    def __init__(self, remote: Remote, folder: Path, limit: int) -> None:
        self._remote = remote
        self._root = folder.parent
        self._folder = folder / "containers"
        self._limit = limit

    def path(self, container: Container) -> Path:
        """The file of a container that is complete."""
        return self._folder / container.name

    def part(self, container: Container) -> Path:
        """The file of a container that is being downloaded."""
        return self._folder / f"{container.name}.{container.size}.part"

    def hold(self, container: Container) -> int | None:
        """Keeps a container from being evicted; None where it is not in the cache.

        Returns: a file descriptor; give it back with :func:`coke.files.lock.give_back`.
        """
        path = self.path(container)
        try:
            held = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        # The lock is not free while the container is being evicted. Between opening and locking, it
        # may have been evicted, and even fetched anew.
        taken = lock.take(held, shared=True)
        if taken and os.fstat(held).st_nlink and os.fstat(held).st_size == container.size:
            with contextlib.suppress(PermissionError):  # the file of another user keeps its age
                os.utime(held)
            return held
        os.close(held)
        return None

    def ensure(
        self,
        container: Container,
        *,
        keep: Callable[[], set[Path]],
        stop: threading.Event,
    ) -> None:
        """Returns when a container is in the cache, downloaded by this or another process.

        Args:
            container: the container.
            keep: gives the files that must not be evicted to make room, besides those that are
                held. It is asked again at each look for room.
            stop: ends the waiting when it is set.

        Raises:
            WrongContent, FileNotFoundError: see :meth:`Remote.download`.
            ValueError: it cannot be read, or the disk is full.
        """
        path = self.path(container)
        while not stop.is_set() and not path.is_file():
            part = self._reserve(container, keep())
            if part is None:
                stop.wait(POLL_S)
                continue
            try:
                self._download(container, stop)
            finally:
                os.close(part)  # gives the lock back, too
            return
        with contextlib.suppress(OSError):  # it was evicted just now, or is of another user
            os.utime(path)  # it is needed soon: no other rank should evict it first

    def _download(self, container: Container, stop: threading.Event) -> None:
        part = self.part(container)
        try:
            self._remote.download(
                container.name, part, size=container.size, sha256=container.sha256, stop=stop
            )
            flush(part)
            with self._exclusively():  # no other process sums sizes while the name changes
                part.replace(self.path(container))
        except BaseException as error:
            part.unlink(missing_ok=True)  # while it is locked, the name is ours
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"the disk of {self._root} is full, at less than the cache's limit of "
                f"{self._limit:,} bytes: free some, lower cache_gb, or name another cache_dir"
            ) from error

    def _reserve(self, container: Container, keep: set[Path]) -> int | None:
        """Makes room, and an empty, locked part; None where there is no room now."""
        with self._exclusively():
            if self.path(container).is_file():
                return None
            entries = list(self._entries())
            if any(entry.path == self.part(container) for entry in entries):
                return None  # another process or thread downloads it
            if not self._make_room(container.size, entries, keep):
                return None
            part = os.open(self.part(container), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            lock.take(part, wait=True)
            return part

    def _make_room(self, size: int, entries: list[_Entry], keep: set[Path]) -> bool:
        used = sum(entry.size for entry in entries)
        for entry in sorted(entries, key=lambda entry: entry.used_ns):
            if used + size <= self._limit:
                break
            if entry.path not in keep and entry.path.suffix != ".part" and _unlink_free(entry.path):
                used -= entry.size
        return used + size <= self._limit

    def _entries(self) -> Iterator[_Entry]:
        """The files that take room; parts of killed downloads are removed instead."""
        for folder in self._root.glob("*/containers"):
            for found in os.scandir(folder):
                path = Path(found.path)
                with contextlib.suppress(FileNotFoundError):  # its download has just failed
                    status = found.stat()
                    if path.suffix != ".part":
                        yield _Entry(path=path, size=status.st_size, used_ns=status.st_mtime_ns)
                    elif not _unlink_free(path):
                        size = int(path.suffixes[-2][1:])
                        yield _Entry(path=path, size=size, used_ns=status.st_mtime_ns)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One process and thread at a time, while room is made."""
        with (self._root / "cache.lock").open("wb") as file:
            lock.take(file, wait=True)
            yield


def _unlink_free(path: Path) -> bool:
    """Removes a file unless it is locked; returns whether it is gone."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        free = lock.take(opened)
        if free:
            path.unlink(missing_ok=True)
        return free
    finally:
        os.close(opened)
