"""Worker processes: results in order, and messages when a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coke.distributed.workers import PIECES_AHEAD, default_workers, worker_pool


def square(number: int) -> tuple[int, int]:
    time.sleep(0.02 * (number % 3 == 0))  # later tasks are finished earlier
    return number**2, os.getpid()


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise ValueError(f"{number} is refused")


def test_one_worker_is_this_process() -> None:
    with worker_pool(1) as run:
        assert list(run(square, [3, 4])) == [(9, os.getpid()), (16, os.getpid())]


def test_results_come_in_the_order_of_the_tasks_and_tasks_are_taken_as_needed() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    with worker_pool(2) as run:
        results = run(square, tasks())
        first = next(results)
        assert first[0] == 0 and first[1] != os.getpid()
        assert len(taken) == 2 * PIECES_AHEAD
        assert [value for value, _ in results] == [number**2 for number in range(1, 40)]
        assert list(run(square, [])) == []


def test_an_error_of_the_function_comes_as_it_is() -> None:
    with pytest.raises(ValueError, match="^2 is refused$"), worker_pool(2) as run:
        list(run(refuse, [2, 3]))


def test_a_killed_worker_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match=r"a worker process died.*fewer --workers \(now 2\)"),
        worker_pool(2) as run,
    ):
        list(run(die, [1, 2]))


@pytest.mark.slow
def test_a_script_without_a_main_guard_hears_of_the_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from coke.distributed.workers import worker_pool\n"
        "with worker_pool(2) as run:\n"
        "    print(list(run(abs, [-1, -2])))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "put the call under `if __name__ == '__main__':`" in done.stderr
    assert "memory" not in done.stderr
    guarded = (
        (tmp_path / "script.py")
        .read_text(encoding="utf-8")
        .replace("with", "if __name__ == '__main__':\n  with")
    )
    (tmp_path / "script.py").write_text(guarded, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[1, 2]\n" and done.stderr == ""


def test_the_default_is_the_cores_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert default_workers() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_workers() == 1
