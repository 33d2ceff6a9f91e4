"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coke.files import lock
from coke.files.lock import HeldError, LockFile, NoLocksError

HOLD = """
import sys, time
from pathlib import Path
from coke.files.lock import LockFile
held = LockFile(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_an_exclusive_lock_excludes_all_and_a_shared_one_only_exclusive_ones(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.touch()
    with (
        path.open(encoding="utf-8") as one,
        path.open(encoding="utf-8") as two,
        path.open(encoding="utf-8") as three,
    ):
        assert lock.take(one, shared=True) and lock.take(two, shared=True)
        assert not lock.take(three)
        assert not lock.is_held(path), "a shared lock does not exclude the probe"
        two.close()
        assert lock.take(one), "the holder of the only shared lock may make it exclusive"
        assert not lock.take(three, shared=True) and lock.is_held(path)
        one.close()
        assert lock.take(three, wait=True)
    assert not lock.is_held(path) and not lock.is_held(tmp_path / "missing")


def test_a_lock_is_given_back_though_a_copy_of_its_descriptor_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    held = os.open(path, os.O_RDWR | os.O_CREAT)
    copy = os.dup(held)  # as a memory map has
    assert lock.take(held) and lock.is_held(path)
    lock.give_back(held)
    assert not lock.is_held(path)
    os.close(copy)


def test_a_lock_file_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    held = LockFile(path)
    with pytest.raises(HeldError, match=f"^process {os.getpid()} on {socket.gethostname()}$"):
        LockFile(path)
    held.close()
    path.write_text(
        "process 123456789012 on a host with a longer name than this one has", encoding="utf-8"
    )
    again = LockFile(path)
    assert path.read_text(encoding="utf-8") == f"process {os.getpid()} on {socket.gethostname()}"
    again.close()


def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=f"process {process.pid} on"):
            LockFile(path)
        process.kill()
    LockFile(path).close()


def test_a_lock_file_that_lost_its_name_is_not_current(tmp_path: Path) -> None:
    held = LockFile(tmp_path / "lock")
    assert held.is_current()
    (tmp_path / "lock").rename(tmp_path / "old")
    assert not held.is_current()
    other = LockFile(tmp_path / "lock")
    assert other.is_current() and not held.is_current()
    held.close()
    other.close()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_from_other_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "file"
    path.touch()
    error = OSError(number, os.strerror(number))

    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", refuse)
    with path.open(encoding="utf-8") as file, pytest.raises(NoLocksError):
        lock.take(file)
    held = LockFile(tmp_path / "lock")
    assert held.without_locks and held.is_current() and not lock.is_held(path)
    held.close()
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with (
        path.open(encoding="utf-8") as file,
        pytest.raises(OSError, match="Input/output") as raised,
    ):
        lock.take(file)
    assert not isinstance(raised.value, NoLocksError)
