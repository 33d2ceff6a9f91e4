"""Worker processes: one function over many pieces of work, with the results in order."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar

from coke.distributed.lifeline import Lifeline, end_with_starter

Task = TypeVar("Task")
Result = TypeVar("Result")


class Mapper(Protocol):
    """``map`` of a pool of workers: results come in the order of the tasks."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], /
    ) -> Iterator[Result]: ...


#: Pieces per worker that are handed out before their results are taken, so that no worker waits.
PIECES_AHEAD = 4

#: Workers import the script that starts them: one that works while it is imported starts others.
_CANNOT_START = (
    "no worker process could start; in a script, put the call under `if __name__ == '__main__':`, "
    "or use workers=1"
)


def default_workers() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int, *, preload: tuple[str, ...] = ()) -> Iterator[Mapper]:
    """A ``map`` over ``workers`` processes; 1 means in this process.

    On Linux a clean server process imports ``preload`` once and forks the workers: they inherit
    no thread and no lock of the caller.

    Raises:
        ValueError: a worker died, or none could start.
    """
    if workers == 1:
        yield map
        return
    if sys.platform == "linux":
        context: mp.context.BaseContext = mp.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
    else:
        context = mp.get_context("spawn")
    lifeline = Lifeline()
    started, start = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(lifeline.theirs, start)
    )

    def run(function: Callable[[Task], Result], tasks: Iterable[Task], /) -> Iterator[Result]:
        pending: deque[Future[Result]] = deque()
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) >= workers * PIECES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield run
    except BrokenProcessPool as error:
        raise ValueError(_died(workers) if started.poll() else _CANNOT_START) from error
    except BaseException:
        lifeline.cut()  # results that are still being computed are not needed
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        lifeline.close()
        started.close()
        start.close()


def _died(workers: int) -> str:
    return (
        "a worker process died, most likely for lack of memory; run again with fewer --workers "
        f"(now {workers})"
    )


def _start_worker(lifeline: Connection, start: Connection) -> None:
    start.send_bytes(b"started")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_starter(lifeline, 1)
