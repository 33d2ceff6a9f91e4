"""Signals become a flag; ranks agree on it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from coke.tools.runs.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.requested()
        os.kill(os.getpid(), number)
        assert interruption.requested() and interruption.requested()
        assert interruption.reason == number.name
    assert signal.getsignal(number) == before


def test_signals_that_are_passed_on_twice_are_one() -> None:
    with Interruption() as interruption:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.reason == "SIGTERM"


def test_a_second_ctrl_c_ends_at_once() -> None:
    child = os.fork()
    if child == 0:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.4)  # a signal sent sooner could be the first one, passed on twice
            if interruption.requested():
                os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT


def test_another_ranks_signal_counts() -> None:
    asked: list[bool] = []

    def agree(mine: bool) -> bool:
        asked.append(mine)
        return True

    with Interruption(agree) as interruption:
        assert interruption.requested()
        assert asked == [False] and interruption.reason == "signal to another rank"


def test_outside_of_the_main_thread_nothing_is_handled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def work() -> None:
        with Interruption() as interruption:
            inside.append((signal.getsignal(signal.SIGTERM), interruption.requested()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, False)]
