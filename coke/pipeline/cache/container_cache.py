"""Files of remote data sets on the local disk: within a size limit, shared by the ranks of a host.

    <cache>/cache.lock                                   held while room is made
    <cache>/<data set>/manifest.json, index.npy, ...     fetched once, not counted
    <cache>/<data set>/containers/images-00000.tar       complete and checked: the name says so
    <cache>/<data set>/containers/images-00003.tar.<size>.part      being downloaded

Everything between processes rests on ``flock``, which the kernel takes back when a process dies,
however it dies. A container in use is held by a shared lock, a part by an exclusive one. So a file
that nobody holds may go: a container to make room, the least recently used first; a part because
its download was killed. A part counts with its final size from the start: that is what keeps the
cache within its limit while several processes fill it.
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

POLL_S = 0.05  # between two looks at what other processes do


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A file that counts towards the limit."""

    path: Path
    size: int  # its final one
    used_ns: int


class ContainerCache:
    """The containers of one remote data set, as far as they fit.

    Args:
        remote: where they come from.
        folder: the data set's folder in the cache.
        limit: bytes that all containers of all data sets in the cache may take together.
    """

    def __init__(self, remote: Remote, folder: Path, limit: int) -> None:
        self._remote = remote
        self._root = folder.parent
        self._folder = folder / "containers"
        self._limit = limit

    def path(self, container: Container) -> Path:
        return self._folder / container.name

    def part(self, container: Container) -> Path:
        """The name it has while it is downloaded."""
        return self._folder / f"{container.name}.{container.size}.part"

    def hold(self, container: Container) -> int | None:
        """A file descriptor that keeps a container from being evicted; None where it is not here.

        Give it back with :func:`coke.files.lock.give_back`.
        """
        path = self.path(container)
        try:
            held = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        # Not taken: it is being evicted. Between opening and locking, it may have been evicted and
        # even fetched anew.
        taken = lock.take(held, shared=True)
        if taken and os.fstat(held).st_nlink and os.fstat(held).st_size == container.size:
            with contextlib.suppress(PermissionError):  # of another user: its age stays
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
        """Downloads a container unless it is here, or another process brings it; returns when it is
        here, or ``stop`` is set.

        Args:
            container: which.
            keep: asked again and again while there is no room: what must not be evicted for it,
                besides what is held.
            stop: ends the waiting.

        Raises:
            WrongContent, FileNotFoundError, ValueError: it cannot be had, see
                :meth:`Remote.download`; or the disk is full.
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
                os.close(part)  # and with it the lock
            return
        with contextlib.suppress(OSError):  # evicted just now, or of another user
            os.utime(path)  # it is needed soon: no other rank should evict it first

    def _download(self, container: Container, stop: threading.Event) -> None:
        part = self.part(container)
        try:
            self._remote.download(
                container.name, part, size=container.size, sha256=container.sha256, stop=stop
            )
            flush(part)
            with self._exclusively():  # nobody counts while a name changes
                part.replace(self.path(container))
        except BaseException as error:
            part.unlink(missing_ok=True)  # its name is ours for as long as it is locked
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"the disk of {self._root} is full, at less than the cache's limit of "
                f"{self._limit:,} bytes: free some, lower cache_gb, or name another cache_dir"
            ) from error

    def _reserve(self, container: Container, keep: set[Path]) -> int | None:
        """Makes room and an empty, locked part; None where that cannot be now."""
        with self._exclusively():
            if self.path(container).is_file():
                return None
            entries = list(self._entries())
            if any(entry.path == self.part(container) for entry in entries):
                return None  # another process, or thread, is bringing it
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
        """What takes room; parts of killed downloads are removed on the way."""
        for folder in self._root.glob("*/containers"):
            for found in os.scandir(folder):
                path = Path(found.path)
                with contextlib.suppress(FileNotFoundError):  # its download failed just now
                    status = found.stat()
                    if path.suffix != ".part":
                        yield _Entry(path=path, size=status.st_size, used_ns=status.st_mtime_ns)
                    elif not _unlink_free(path):
                        size = int(path.suffixes[-2][1:])
                        yield _Entry(path=path, size=size, used_ns=status.st_mtime_ns)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One process, and thread, at a time: for the moment that room is made in."""
        with (self._root / "cache.lock").open("wb") as file:
            lock.take(file, wait=True)
            yield


def _unlink_free(path: Path) -> bool:
    """Removes a file unless someone holds it."""
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
