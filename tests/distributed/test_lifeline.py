"""A process ends when the process that started it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coke.distributed.lifeline import LIFELINE, PEER_LOST, Lifeline, end_with_launcher

RANK = """
import os, sys, time
from coke.distributed.lifeline import end_with_launcher
end_with_launcher(os.environ)
print("waits", flush=True)
time.sleep(600)
"""


@contextmanager
def rank(lifeline: Lifeline) -> Iterator[subprocess.Popen[bytes]]:
    theirs = lifeline.theirs.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", RANK],
        env={**os.environ, LIFELINE: str(theirs)},
        pass_fds=[theirs],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"waits\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", ["cut", "close"])
def test_processes_end_when_their_lifeline_is_cut(end: str) -> None:
    lifeline = Lifeline()
    with rank(lifeline) as one, rank(lifeline) as two:
        assert one.poll() is None and two.poll() is None
        getattr(lifeline, end)()
        assert one.wait(60) == PEER_LOST and two.wait(60) == PEER_LOST
    lifeline.close()  # once more does no harm


def test_without_a_launcher_nothing_waits() -> None:
    end_with_launcher({"RANK": "0"})


def test_the_launcher_does_not_wait_for_torch() -> None:
    code = "import sys, coke.distributed.launch; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
