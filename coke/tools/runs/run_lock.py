"""Which process trains in a run folder, and how the last one ended: ``lock``, ``status.json``.

The kernel holds the lock (``flock``) and gives it back when its process ends, however that ends.
A shared file system may not pass locks to other machines. For them the process changes the lock
file's modification time every few seconds, as a heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from coke.files import durable, lock
from coke.tools.runs.interruption import RunStopped

LOCK, STATUS = "lock", "status.json"
RUNNING, STOPPED, COMPLETE, FAILED = "running", "stopped", "complete", "failed"
BEAT_S = 5.0  # seconds between two heartbeats
#: Seconds without a heartbeat after which a process on another machine counts as gone.
STALE_S = 30.0
_KILLED = "the process ended without a status: killed, out of memory, or a power cut"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The content of ``status.json``: a state, its reason, and the process that wrote it."""

    state: str
    message: str
    host: str
    pid: int
    changed: float  # seconds since 1970


class RunLock:
    """Context manager that holds a run folder for one training process.

    Entering refuses a folder in which another process trains. Leaving writes whether the run is
    complete, was stopped, or failed, and the message of the error.

    Raises:
        ValueError: the folder is in use; the message names the process.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._file: IO[str] | None = None
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._run.mkdir(parents=True, exist_ok=True)
        self._file = (self._run / LOCK).open("a", encoding="utf-8")
        try:
            taken = _take(self._file)
            before = read_status(self._run)
            if taken is False or (_may_live(before, taken) and _beats_on(self._run)):
                raise ValueError(_in_use(self._run, before))
        except BaseException:
            self._file.close()
            raise
        os.utime(self._run / LOCK)
        self._write(RUNNING, "")
        self._beats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._beats.join()
        with contextlib.suppress(OSError):  # a full disk must not hide what ended the run
            if error is None:
                self._write(COMPLETE, "")
            elif isinstance(error, RunStopped):
                self._write(STOPPED, str(error))
            else:
                self._write(FAILED, str(error) or type(error).__name__)
        assert self._file is not None
        self._file.close()  # gives the lock back

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._run / LOCK)

    def _write(self, state: str, message: str) -> None:
        status = {
            "state": state,
            "message": message,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "changed": time.time(),
        }
        durable.write_json(self._run / STATUS, status)


def read_status(run: Path) -> RunStatus | None:
    """The status that the newest process in a run folder wrote; None if none did."""
    try:
        found: dict[str, Any] = json.loads((run / STATUS).read_text(encoding="utf-8"))
        return RunStatus(**found)
    except (OSError, ValueError, TypeError):
        return None


def current_status(run: Path) -> RunStatus | None:
    """The status as it is now: a process whose status is "running" may be gone."""
    status = read_status(run)
    if status is None or status.state != RUNNING:
        return status
    locked = lock.is_held(run / LOCK)
    if locked or (status.host != socket.gethostname() and _age(run / LOCK) < STALE_S):
        return status
    return RunStatus(
        state=FAILED,
        message=_KILLED,
        host=status.host,
        pid=status.pid,
        changed=max(status.changed, time.time() - _age(run / LOCK)),
    )


def check_unlocked(run: Path) -> None:
    """Raises ValueError if a process of this machine trains in a folder. Takes no lock."""
    if lock.is_held(run / LOCK):
        raise ValueError(_in_use(run, read_status(run)))


def _may_live(before: RunStatus | None, taken: bool | None) -> bool:
    """Whether the process that wrote a status may still train, although we could take the lock:
    the lock may not cover processes of other machines.
    """
    if before is None or before.state != RUNNING:
        return False
    return not taken or before.host != socket.gethostname()


def _take(file: IO[str]) -> bool | None:
    """Whether we hold the lock now; None if the file system has no locks."""
    for wait_s in (0.1, 0.3, 0.6, None):  # `coke runs` holds it for an instant to look
        try:
            if lock.take(file):
                return True
        except OSError:
            return None
        if wait_s is None:
            return False
        time.sleep(wait_s)
    raise AssertionError("the loop returns")


def _beats_on(run: Path) -> bool:
    """Whether a heartbeat changes the lock file's time during three intervals."""
    beaten = run / LOCK
    if _age(beaten) > STALE_S:
        return False
    first = beaten.stat().st_mtime_ns
    until = time.monotonic() + 3 * BEAT_S
    while time.monotonic() < until:
        time.sleep(BEAT_S / 5)
        if beaten.stat().st_mtime_ns != first:
            return True
    return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _in_use(run: Path, status: RunStatus | None) -> str:
    who = "another process"
    if status is not None and status.state == RUNNING:
        who = f"process {status.pid} on {status.host}"
    return f"run folder {run} is in use: {who} trains in it; end that one, or choose another --out"
