"""Which process holds a run folder, and what status is read after it has died."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coke.tools.runs import run_lock
from coke.tools.runs.interruption import RunStopped
from coke.tools.runs.run_lock import RunLock, RunStatus, current_status, read_status
from tests.support.patience import wait_until


def state(run: Path) -> str:
    status = current_status(run)
    assert status is not None
    return status.state


def test_the_status_says_how_a_process_ended(tmp_path: Path) -> None:
    assert current_status(tmp_path) is None
    with RunLock(tmp_path):
        assert state(tmp_path) == "running"
        status = read_status(tmp_path)
        assert status is not None and (status.pid, status.host) == (
            os.getpid(),
            socket.gethostname(),
        )
    assert state(tmp_path) == "complete"
    for error, expected in ((RunStopped("by SIGTERM"), "stopped"), (ValueError("nan"), "failed")):
        with pytest.raises(type(error)), RunLock(tmp_path):
            raise error
        status = current_status(tmp_path)
        assert status is not None and (status.state, status.message) == (expected, str(error))


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with (
            pytest.raises(ValueError, match=rf"in use: process {os.getpid()} on .*--out"),
            RunLock(tmp_path),
        ):
            pass
        assert state(tmp_path) == "running", "the one that was refused says nothing"
    with RunLock(tmp_path):
        pass


HOLD = """
import sys, time
from pathlib import Path
from coke.tools.runs.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_process_is_told_from_a_running_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert state(tmp_path) == "running"
        with pytest.raises(ValueError, match=f"process {process.pid} on"), RunLock(tmp_path):
            pass
        process.kill()
    status = current_status(tmp_path)
    assert status is not None and status.state == "failed" and "killed" in status.message
    with RunLock(tmp_path):  # at once: the kernel gave the lock back
        assert state(tmp_path) == "running"


def elsewhere(run: Path, age_s: float) -> None:
    """The folder as a process on another machine leaves it."""
    status = {"state": "running", "message": "", "host": "other", "pid": 1, "changed": 0.0}
    (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
    (run / "lock").touch()
    then = time.time() - age_s
    os.utime(run / "lock", (then, then))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("locks", [True, False])
def test_a_heartbeat_from_another_machine_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:

        def no_locks(*_: Any) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", no_locks)
    elsewhere(tmp_path, age_s=1)
    assert state(tmp_path) == "running"
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.02):
            os.utime(tmp_path / "lock")

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(ValueError, match="process 1 on other"), RunLock(tmp_path):
            pass
    finally:
        ended.set()
        heart.join()
    with RunLock(tmp_path):  # no heartbeat came while we waited
        pass


@pytest.mark.usefixtures("quick")
def test_a_stale_heartbeat_holds_nothing(tmp_path: Path) -> None:
    elsewhere(tmp_path, age_s=run_lock.STALE_S + 1)
    assert state(tmp_path) == "failed"
    with RunLock(tmp_path):
        assert state(tmp_path) == "running"


@pytest.mark.usefixtures("quick")
def test_a_process_that_trains_has_a_heartbeat(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        os.utime(tmp_path / "lock", (0, 0))
        wait_until(lambda: (tmp_path / "lock").stat().st_mtime != 0, "a heartbeat")


def test_an_incomplete_status_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "runn', encoding="utf-8")
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text('{"state": "running"}', encoding="utf-8")
    assert read_status(tmp_path) is None
    whole = RunStatus(state="stopped", message="m", host="h", pid=1, changed=2.0)
    (tmp_path / "status.json").write_text(json.dumps(vars(whole)), encoding="utf-8")
    assert read_status(tmp_path) == whole
