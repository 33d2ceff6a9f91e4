"""Locks between processes: the kernel's ``flock``.

The kernel gives a lock back when its holder ends, however the holder ends. No lock goes stale.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class NoLocksError(OSError):
    """The file system has no locks."""


class HeldError(Exception):
    """Another process holds the lock; the message names it, as in ``process 71 on host-a``."""


def take(file: int | IO[str] | IO[bytes], *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file; closing the file gives the lock back.

    Args:
        file: an open file or its descriptor.
        shared: any number of processes may hold a shared lock; it excludes exclusive ones.
        wait: until the lock is free.

    Returns: whether the lock was taken; always true with ``wait``.

    Raises:
        NoLocksError: the file system has no locks.
        OSError: the system refuses for another reason.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(error.errno, error.strerror) from error
        raise
    return True


def is_held(path: Path) -> bool:
    """Whether another process holds the lock of a file; nothing is kept locked.

    False where there is no such file, or the file system has no locks.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return not take(file, shared=True)
    except OSError:
        return False


def give_back(file: int) -> None:
    """Unlocks and closes a descriptor.

    A memory map of the file has a descriptor of its own with the same lock. Closing ours would
    then keep the lock.
    """
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


class LockFile:
    """A file that exists to be locked; its text names the process that holds it.

    Opening it takes the lock. The lock counts even if the holder before removed the file between
    our opening and our locking: then the file is made and locked anew.

    Args:
        path: the file. Its folder is made where it is missing (the folder above must exist).

    Attributes:
        without_locks: whether the file system has no locks, so that nothing is excluded.

    Raises:
        HeldError: another process holds the lock.
        OSError: the file cannot be made or locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.without_locks = False
        while True:
            path.parent.mkdir(exist_ok=True)
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the holder before has just removed the folder
                continue
            try:
                self._lock()
                if self.is_current():
                    os.ftruncate(self._descriptor, 0)
                    os.write(self._descriptor, _this_process().encode())
                    return
            except BaseException:
                self.close()
                raise
            self.close()

    def _lock(self) -> None:
        try:
            taken = take(self._descriptor)
        except NoLocksError:
            self.without_locks = True
            return
        if not taken:
            holder = os.read(self._descriptor, 200).decode(errors="replace")
            raise HeldError(holder or "another process")

    def is_current(self) -> bool:
        """Whether the locked file still has its name: someone may have removed or replaced it."""
        try:
            return os.stat(self.path).st_ino == os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Gives the lock back; the file stays."""
        os.close(self._descriptor)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
