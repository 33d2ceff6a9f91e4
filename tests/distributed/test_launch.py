"""Ranks on one machine: their environment, and how they end. Small scripts stand for ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from coke.distributed.launch import Outcome, launch
from coke.distributed.lifeline import LIFELINE, PEER_LOST
from tests.support.patience import wait_until


def run(tmp_path: Path, script: str, nproc: int = 3, grace_s: float = 5.0) -> Outcome:
    """Runs a script as ``nproc`` ranks. It has the variables ``rank`` and ``here`` (a folder)."""
    path = tmp_path / "rank.py"
    head = "import os, signal, sys, time, pathlib\nrank = int(os.environ['RANK'])\n"
    path.write_text(
        head + f"here = pathlib.Path({str(tmp_path)!r})\n" + textwrap.dedent(script),
        encoding="utf-8",
    )
    return launch(nproc, [str(path)], program=(sys.executable,), grace_s=grace_s)


def test_every_rank_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outcome = run(
        tmp_path,
        """
        names = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
                 "OMP_NUM_THREADS")
        (here / f"{rank}.txt").write_text(" ".join(os.environ[name] for name in names))
        print("lost in a pipe", file=sys.stderr)
        """,
    )
    assert outcome == Outcome(0)
    places = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8").split() for rank in range(3)]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 3))
    port = places[0][4]
    assert places == [[str(r), "3", "3", "127.0.0.1", port, threads] for r in range(3)]


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_is_named(tmp_path: Path) -> None:
    """The others would sleep for ten minutes; pytest would then say that the test hangs."""
    outcome = run(
        tmp_path,
        """
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """,
    )
    assert outcome.status == 1
    assert outcome.message == (
        "rank 1 of 3 was ended by SIGKILL (as the system does when memory runs out): all 3 ranks "
        "have ended; go on with --resume"
    )


@pytest.mark.slow
def test_ranks_that_do_not_listen_are_killed(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        """
        if rank == 2:
            while not (here / "deaf").exists():
                time.sleep(0.05)
            sys.exit("the disk is full")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if rank == 0:
            (here / "deaf").touch()
        time.sleep(600)
        """,
        grace_s=0.5,
    )
    assert outcome.status == 1
    assert outcome.message is not None
    assert "rank 2 of 3 failed with status 1: the disk is full" in outcome.message


@pytest.mark.slow
def test_a_rank_that_lost_another_is_not_the_first_to_fail(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        f"""
        if rank < 2:
            sys.exit({PEER_LOST})
        time.sleep(1)
        sys.exit("it was me")
        """,
    )
    assert outcome.status == 1
    assert outcome.message is not None and "rank 2 of 3" in outcome.message
    outcome = run(tmp_path, f"sys.exit({PEER_LOST})", nproc=2)
    assert outcome.status == PEER_LOST
    assert outcome.message is not None and "lost contact with each other" in outcome.message


def test_an_error_that_rank_0_has_printed_is_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run(tmp_path, "print('error: no such data', file=sys.stderr); sys.exit(2)")
    assert outcome == Outcome(2)
    assert capfd.readouterr().err == "error: no such data\n"


@pytest.mark.slow
def test_a_signal_reaches_every_rank_once_and_their_status_comes_back(tmp_path: Path) -> None:
    def interrupt() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    outcome = run(
        tmp_path,
        """
        def stop(*_):
            (here / f"stopped-{rank}").touch(exist_ok=False)
            time.sleep(rank * 0.3)  # ranks end one after the other; the launcher kills none
            sys.exit(75)

        signal.signal(signal.SIGTERM, stop)
        (here / f"ready-{rank}").touch()
        while True:
            time.sleep(0.05)
        """,
        grace_s=0.1,
    )
    assert outcome == Outcome(75)
    assert len(list(tmp_path.glob("stopped-*"))) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ranks_end_with_their_launcher(tmp_path: Path) -> None:
    """A launcher killed by SIGKILL cannot end its ranks; the pipe that closes with it does."""
    script = textwrap.dedent(
        f"""
        import os, pathlib, time
        here = pathlib.Path({str(tmp_path)!r})
        (here / "pid").write_text(str(os.getpid()))
        os.rename(here / "pid", here / "pid.txt")
        os.read(int(os.environ["{LIFELINE}"]), 1)
        (here / "ended").touch()
        """
    )
    (tmp_path / "rank.py").write_text(script, encoding="utf-8")
    code = (
        "import sys; from coke.distributed.launch import launch; "
        f"launch(1, [{str(tmp_path / 'rank.py')!r}], program=(sys.executable,))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    try:
        _wait_for(tmp_path / "pid.txt")
    finally:
        launcher.kill()
        launcher.wait()
    _wait_for(tmp_path / "ended")


def _wait_for(path: Path) -> None:
    wait_until(path.exists, path.name)


def test_no_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="--nproc is 0"):
        launch(0, [])
