"""Work that runs one item ahead of its consumer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_ahead(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``work`` makes of it, in order; meanwhile the next one is worked on.

    ``work`` runs in one other thread. So the caller's thread reads images and writes features
    while a network computes. An iteration that is abandoned waits for the item in work.

    Raises:
        Exception: what ``work`` raises, when its item's turn has come.
    """
    with ThreadPoolExecutor(1) as thread:
        pending = None
        for item in items:
            following = item, thread.submit(work, item)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = following
        if pending is not None:
            yield pending[0], pending[1].result()
