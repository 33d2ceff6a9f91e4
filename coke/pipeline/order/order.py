"""Which ids come when: a pure function of seed, epoch, world size and position.

There are three orders. Each computes any position on its own, so no rank stores a permutation, and
starting at position p costs the same as starting at 0:

- ``global``: one permutation of all images.
- ``blocks``: containers are permuted and read in windows of a few; the images of a window are
  permuted. It suits buckets, and disks that are slow at random reads. docs/order.md says how much
  randomness it loses.
- ``sequential``: ids ascending.

Tombstones (ids whose image is gone) have no position in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from coke.config.data import DEFAULT_WINDOW, SHUFFLES
from coke.pipeline.order.blocks import BlockOrder
from coke.pipeline.order.epoch_order import EpochOrder, Window
from coke.pipeline.order.live_ids import ContainerSpans, LiveIds
from coke.pipeline.order.permutation import Ids, permute

ORDERS = (*SHUFFLES, "sequential")


class GlobalOrder(EpochOrder):
    """One permutation of all images; every position may need any container."""

    mode = "global"

    def __init__(self, live: LiveIds, spans: ContainerSpans, seed: int) -> None:
        super().__init__(live)
        self._spans, self._seed = spans, seed

    def ids(self, epoch: int, positions: Ids) -> Ids:
        return self._live.at(permute(positions, seed=self._seed, epoch=epoch, n=len(self)))

    def windows(self, epoch: int) -> Sequence[Window]:
        numbers = self._spans.numbers
        return [Window(start=0, stop=len(self), containers=tuple(numbers.tolist()))]

    @property
    def containers_at_once(self) -> int:
        return len(self._spans.numbers)


class SequentialOrder(EpochOrder):
    """Ids ascending; one container at a time."""

    mode = "sequential"

    def __init__(self, live: LiveIds, spans: ContainerSpans) -> None:
        super().__init__(live)
        self._spans = spans

    def ids(self, epoch: int, positions: Ids) -> Ids:
        return self._live.at(positions)

    @cached_property
    def _windows(self) -> list[Window]:
        columns = (self._spans.numbers, self._spans.firsts, self._spans.counts)
        return [
            Window(start=first, stop=first + count, containers=(number,))
            for number, first, count in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def windows(self, epoch: int) -> Sequence[Window]:
        return self._windows

    @property
    def containers_at_once(self) -> int:
        return 1


def epoch_order(
    mode: str,
    n: int,
    spans: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    window: int = DEFAULT_WINDOW,
    dead_ids: Ids | None = None,
    live: LiveIds | None = None,
) -> EpochOrder:
    """An order of the images of a data set.

    Args:
        mode: ``global``, ``blocks`` or ``sequential``.
        n: number of ids, tombstones among them.
        spans: the ids [start, stop) each container answers for.
        seed: decides the order, together with the epoch.
        window: containers that ``blocks`` shuffles together at most.
        dead_ids: tombstones, ascending; None where there are none.
        live: the ids that have an image, instead of ``dead_ids``.

    Raises:
        ValueError: an unknown mode, a window of no container, or containers that do not hold
            every image once.
    """
    if mode not in ORDERS:
        raise ValueError(f"order is {mode!r}; choose one of {', '.join(ORDERS)}")
    if window < 1:
        raise ValueError(f"window is {window}; blocks of at least 1 container are shuffled")
    if live is None:
        live = LiveIds(n, dead_ids)
    of_containers = ContainerSpans(live, spans)
    if int(of_containers.counts.sum()) != len(live):
        raise ValueError(
            f"the containers answer for {int(of_containers.counts.sum())} images, the index holds "
            f"{len(live)}: the manifest is damaged or of another ingest"
        )
    if mode == "global":
        return GlobalOrder(live, of_containers, seed)
    if mode == "sequential":
        return SequentialOrder(live, of_containers)
    return BlockOrder(live, of_containers, seed, window)


def order(
    seed: int,
    epoch: int,
    n: int,
    world: int = 1,
    rank: int = 0,
    start: int = 0,
    *,
    mode: str = "global",
    spans: Sequence[tuple[int, int]] | None = None,
    window: int = DEFAULT_WINDOW,
    dead_ids: Ids | None = None,
) -> Ids:
    """The ids rank ``rank`` of ``world`` sees in an epoch from global position ``start`` on.

    Over one epoch, every id with an image comes exactly once across the ranks. Rank r takes every
    ``world``-th position. So the global batch at step s (all ranks' local batches together) is the
    same set of ids at every world size. ``n`` counts ids, tombstones among them; positions are
    of images. ``mode``, ``spans`` (all of n in one container where None), ``window`` and
    ``dead_ids`` are those of :func:`epoch_order`.

    Raises:
        ValueError: rank outside 0..world-1, start outside the epoch, an unknown mode.
    """
    whole = epoch_order(mode, n, spans or [(0, n)], seed=seed, window=window, dead_ids=dead_ids)
    check_rank(rank, world)
    check_start(start, len(whole))
    return whole.ids(epoch, np.arange(start + rank, len(whole), world))


def rank_sizes(images: int, world: int) -> tuple[int, ...]:
    """How many images of a step each rank has: rank r takes every world-th, beginning at r."""
    return tuple(len(range(r, images, world)) for r in range(world))


def check_rank(rank: int, world: int) -> None:
    """Raises ValueError where ``rank`` is none of 0..world-1."""
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank} in a world of {world}; ranks are 0..{world - 1}")


def check_start(start: int, n: int) -> None:
    """Raises ValueError where ``start`` is no position of an epoch of n images, nor its end."""
    if not 0 <= start <= n:
        raise ValueError(f"start is {start}; positions of {n} images are 0..{n}")
