"""``coke train --nproc N``: starts, watches and ends the ranks of a run on this machine.

It differs from torchrun on one machine in two ways: it returns the exit status of the ranks, and
it reports a rank that died in one line. For several machines use torchrun itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

from coke.distributed.lifeline import LIFELINE, PEER_LOST, Lifeline

#: Seconds between SIGTERM and SIGKILL for the other ranks, once one has failed.
GRACE_S = 20.0
_SETTLE_S = 2.0  # seconds before SIGTERM, for ranks that are ending by themselves
_POLL_S = 0.1  # seconds between two looks at the ranks


@dataclass(frozen=True)
class Outcome:
    """Exit status of a run, and one line about its failure if rank 0 has not printed one."""

    status: int
    message: str | None = None


@dataclass(frozen=True)
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    stderr: IO[bytes] | None  # None for rank 0, which writes to this terminal

    @property
    def status(self) -> int | None:
        return self.process.poll()


def launch(
    nproc: int,
    arguments: Sequence[str],
    *,
    program: Sequence[str] = (sys.executable, "-m", "coke"),
    grace_s: float = GRACE_S,
) -> Outcome:
    """Runs ``program arguments`` as ranks 0 to nproc - 1 and waits for all of them.

    Rank 0 shares this terminal. The output of other ranks is held back; if one fails, its last line
    is in the message. The first SIGINT or SIGTERM is passed on to every rank, and the ranks end in
    their own time; the second kills them. Ranks end when this process ends, in whatever way.

    Args:
        nproc: number of ranks.
        arguments: arguments of ``program``.
        program: command of a rank.
        grace_s: when a rank fails, the others get SIGTERM, and ``grace_s`` seconds later SIGKILL.

    Returns: status 0, or the status of the rank that failed first; 1 if a signal ended that rank.

    Raises:
        ValueError: ``nproc`` is below 1.
    """
    if nproc < 1:
        raise ValueError(f"--nproc is {nproc}; give a number of processes, 1 or more")
    lifeline = Lifeline()
    environment = _environment(nproc, lifeline.theirs.fileno())
    ranks: list[_Rank] = []
    try:
        with _signals_passed_on(ranks) as signals:
            for number in range(nproc):
                ranks.append(_start([*program, *arguments], number, environment, lifeline))
            failed = _first_failure(ranks, grace_s)
            if failed is None:
                return Outcome(0)
            status, asked_to_stop = failed.process.returncode, bool(signals)
            if not asked_to_stop or status < 0:
                _end(ranks, grace_s)
            for rank in ranks:
                rank.process.wait()
    finally:
        for rank in ranks:
            if rank.status is None:
                rank.process.kill()
                rank.process.wait()
        lifeline.close()
    return Outcome(status if status > 0 else 1, _message(failed, ranks))


def _environment(nproc: int, lifeline: int) -> dict[str, str]:
    """The environment that all ranks share. Cores are divided among them as OpenMP threads, unless
    the user has set the number of threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // nproc))}
    return (
        threads
        | dict(os.environ)
        | {
            "WORLD_SIZE": str(nproc),
            "LOCAL_WORLD_SIZE": str(nproc),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            LIFELINE: str(lifeline),
        }
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    command: list[str], number: int, environment: Mapping[str, str], lifeline: Lifeline
) -> _Rank:
    # It stays open until the rank has ended: the message may quote its last line.
    stderr = tempfile.TemporaryFile() if number else None  # noqa: SIM115
    process = subprocess.Popen(
        command,
        env={**environment, "RANK": str(number), "LOCAL_RANK": str(number)},
        pass_fds=[lifeline.theirs.fileno()],
        stdout=subprocess.DEVNULL if number else None,
        stderr=stderr,
        start_new_session=True,  # the terminal's Ctrl-C reaches ranks through this process, once
    )
    return _Rank(number, process, stderr)


@contextmanager
def _signals_passed_on(ranks: list[_Rank]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on to the ranks; yields the list of signals received so far."""
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        for rank in ranks:
            with suppress(ProcessLookupError):
                rank.process.send_signal(number if len(received) == 1 else signal.SIGKILL)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(ranks: Sequence[_Rank], patience_s: float) -> _Rank | None:
    """Waits for a rank to fail; None when all ended with status 0.

    A rank that ended because it lost another is not the first to fail: the function waits up to
    ``patience_s`` seconds for that other rank's status.
    """
    give_up = float("inf")
    while True:
        failed = [rank for rank in ranks if rank.status]
        all_ended = all(rank.status is not None for rank in ranks)
        first = [rank for rank in failed if rank.status != PEER_LOST]
        if first:  # a rank that a signal ended may have made others fail: it comes before them
            return min(first, key=lambda rank: (rank.status or 0) > 0)
        if failed and (all_ended or time.monotonic() > give_up):
            return failed[0]
        if all_ended:
            return None
        if failed and give_up == float("inf"):
            give_up = time.monotonic() + patience_s
        time.sleep(_POLL_S)


def _end(ranks: Sequence[_Rank], grace_s: float) -> None:
    """Sends SIGTERM to ranks that do not end by themselves, and SIGKILL ``grace_s`` later."""
    settled = time.monotonic() + min(_SETTLE_S, grace_s)
    while time.monotonic() < settled and any(rank.status is None for rank in ranks):
        time.sleep(_POLL_S)
    for rank in ranks:
        if rank.status is None:
            rank.process.terminate()
    last = time.monotonic() + grace_s
    for rank in ranks:
        try:
            rank.process.wait(max(0.0, last - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.process.kill()


def _message(failed: _Rank, ranks: Sequence[_Rank]) -> str | None:
    """One line about a failure; None if rank 0 has printed one on this terminal."""
    status, n = failed.process.returncode, len(ranks)
    ended = f"all {n} ranks have ended; go on with --resume"
    if status < 0:
        name = signal.Signals(-status).name
        why = " (as the system does when memory runs out)" if name == "SIGKILL" else ""
        return f"rank {failed.number} of {n} was ended by {name}{why}: {ended}"
    if status == PEER_LOST:
        return f"the ranks lost contact with each other: {ended}"
    if failed.number == 0 or ranks[0].process.returncode == status:
        return None
    assert failed.stderr is not None
    failed.stderr.seek(0)
    lines = failed.stderr.read().decode(errors="replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    return f"rank {failed.number} of {n} failed with status {status}{said} ({ended})"
