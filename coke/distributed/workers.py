"""Worker processes: the same function over many pieces of work, results in order."""

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
    """``map`` of one of our pools."""

    def __call__(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], /
    ) -> Iterator[Result]: ...


#: Pieces handed out per worker before their results are taken: enough that none waits for work.
PIECES_AHEAD = 4


def default_workers() -> int:
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int, *, preload: tuple[str, ...] = ()) -> Iterator[Mapper]:
    """A ``map`` over ``workers`` processes; over none, right here, when ``workers`` is 1.

    Workers are forked from a clean server process where the platform has one: importing
    ``preload`` happens once there, and no thread or lock of the caller's is inherited.

    Raises:
        ValueError: a worker died.
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
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(lifeline.theirs,)
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
        raise ValueError(
            "a worker process died, most likely for lack of memory; run again with fewer --workers "
            f"(now {workers})"
        ) from error
    except BaseException:
        lifeline.cut()  # nobody wants the results that are still being computed
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _start_worker(lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_starter(lifeline, 1)
