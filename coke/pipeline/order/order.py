"""Which ids come when: a pure function of seed, epoch, world size and position.

Three orders, each of which computes any position on its own, so that no rank ever stores a
permutation and starting at position p costs the same as starting at 0:

- ``global``: one permutation of all images. A Feistel network over the smallest even-bit domain
  that holds n, with cycle walking.
- ``blocks``: the containers are permuted and read in windows of a few, the images of a window are
  permuted. What a bucket or a disk that dislikes random reads wants; docs/order.md has what it
  costs in randomness.
- ``sequential``: ids ascending.

Tombstones (ids whose image is gone) have no position in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from coke.config.data import DEFAULT_WINDOW, SHUFFLES
from coke.pipeline.randomness import U64, key_of, mix

Ids = NDArray[np.int64]

ORDERS = (*SHUFFLES, "sequential")

_ROUNDS = 6
_PURPOSE = 0x0DE7
_CONTAINERS = 0xC047  # keys of the permutation of containers
_WINDOW = 0x91D0  # keys of the permutations inside windows


def permute(positions: Ids, *, seed: int, epoch: int, n: int) -> Ids:
    """The ids at these positions of the epoch's permutation of 0..n-1."""
    return _permute(positions, n, seed, epoch)


def _permute(positions: Ids, n: int, *key: int) -> Ids:
    """The values at these positions of the permutation of 0..n-1 that the key names."""
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    low_mask = np.uint64((1 << int(half)) - 1)
    round_keys = [key_of(_PURPOSE, *key, r) for r in range(_ROUNDS)]

    def encrypt(x: U64) -> U64:
        left, right = x >> half, x & low_mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & low_mask)
        return (left << half) | right

    ids = encrypt(positions.astype(np.uint64))
    outside = ids >= n
    while outside.any():  # cycle walking: the domain is at most 4 n, so this ends quickly
        ids[outside] = encrypt(ids[outside])
        outside = ids >= n
    return ids.astype(np.int64)


class LiveIds:
    """The ids that have an image, in a row: knows the i-th of them without listing them.

    Args:
        n: number of ids.
        dead_ids: tombstones (n_dead,), ascending; None where there are none. Memory is of their
            number, whatever n is.
    """

    def __init__(self, n: int, dead_ids: Ids | None = None) -> None:
        self._dead = np.zeros(0, dtype=np.int64) if dead_ids is None else dead_ids
        # The live id of ordinal r has as many tombstones below it as there are j with
        # dead[j] - j <= r.
        self._shifts = self._dead - np.arange(len(self._dead))
        self._n = n - len(self._dead)

    def __len__(self) -> int:
        return self._n

    def at(self, ordinals: Ids) -> Ids:
        """The ids of the ``ordinals``-th images (counted from 0)."""
        if len(self._dead) == 0:
            return ordinals
        return ordinals + np.searchsorted(self._shifts, ordinals, side="right")

    def before(self, ids: Ids) -> Ids:
        """How many images have an id below each of these ids, which may be n."""
        return ids - np.searchsorted(self._dead, ids, side="left")


@dataclass(frozen=True, kw_only=True)
class Window:
    """Positions [start, stop) of an epoch need these containers, by number, and no others."""

    start: int
    stop: int
    containers: tuple[int, ...]


class EpochOrder:
    """An order of the images of a data set, epoch by epoch; made by :func:`epoch_order`.

    ``len()`` is the number of positions of an epoch: images, not ids.

    Attributes:
        mode: one of :data:`ORDERS`.
        window: containers that are shuffled together at most; 0 where it makes no difference.
    """

    mode: str
    window = 0

    def __init__(self, live: LiveIds) -> None:
        self._live = live

    def __len__(self) -> int:
        return len(self._live)

    def ids(self, epoch: int, positions: Ids) -> Ids:
        """The ids (P,) int64 at these positions (P,) of an epoch."""
        raise NotImplementedError

    def windows(self, epoch: int) -> Sequence[Window]:
        """Which containers are needed when, in the sequence of positions, without gaps."""
        raise NotImplementedError

    @property
    def containers_at_once(self) -> int:
        """Most containers of any window."""
        raise NotImplementedError


class _Spans:
    """What each container holds: the first ordinal of its images, and how many."""

    def __init__(self, live: LiveIds, spans: Sequence[tuple[int, int]]) -> None:
        bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
        firsts = live.before(bounds[:, 0])
        counts = live.before(bounds[:, 1]) - firsts
        self.numbers = np.flatnonzero(counts)  # a container of tombstones only is never read
        self.firsts, self.counts = firsts[self.numbers], counts[self.numbers]


class _Global(EpochOrder):
    mode = "global"

    def __init__(self, live: LiveIds, spans: _Spans, seed: int) -> None:
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


class _Sequential(EpochOrder):
    mode = "sequential"

    def __init__(self, live: LiveIds, spans: _Spans) -> None:
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


@dataclass(frozen=True, kw_only=True)
class _BlockPlan:
    """One epoch of ``blocks``; arrays over the containers in the sequence they are read in."""

    spans: Ids  # (C,) which span
    starts: Ids  # (C + 1,) position at which a container's images begin, were they not shuffled
    windows: Ids  # (W + 1,) at which of the containers a window begins


class _Blocks(EpochOrder):
    mode = "blocks"

    def __init__(self, live: LiveIds, spans: _Spans, seed: int, window: int) -> None:
        super().__init__(live)
        self._spans, self._seed, self.window = spans, seed, window
        # Windows of nearly equal size: a small rest at the end would hardly be shuffled.
        n_containers = len(spans.numbers)
        n_windows = -(-n_containers // window)
        self._window_bounds = np.arange(n_windows + 1) * n_containers // max(n_windows, 1)
        self._plan = lru_cache(maxsize=2)(self._make_plan)  # an epoch, and the one before it

    def _make_plan(self, epoch: int) -> _BlockPlan:
        n = len(self._spans.numbers)
        spans = _permute(np.arange(n), n, self._seed, epoch, _CONTAINERS)
        starts = np.concatenate([[0], np.cumsum(self._spans.counts[spans])])
        return _BlockPlan(spans=spans, starts=starts, windows=self._window_bounds)

    def ids(self, epoch: int, positions: Ids) -> Ids:
        plan = self._plan(epoch)
        window_starts = plan.starts[plan.windows]
        window_of = np.searchsorted(window_starts, positions, side="right") - 1
        shuffled = np.empty(len(positions), dtype=np.int64)
        for w in np.unique(window_of).tolist():  # one, or two where a batch straddles windows
            inside = window_of == w
            start, stop = int(window_starts[w]), int(window_starts[w + 1])
            local = _permute(positions[inside] - start, stop - start, self._seed, epoch, _WINDOW, w)
            shuffled[inside] = start + local
        at = np.searchsorted(plan.starts, shuffled, side="right") - 1
        return self._live.at(self._spans.firsts[plan.spans[at]] + shuffled - plan.starts[at])

    def windows(self, epoch: int) -> Sequence[Window]:
        plan = self._plan(epoch)
        numbers = self._spans.numbers[plan.spans].tolist()
        bounds, starts = plan.windows.tolist(), plan.starts[plan.windows].tolist()
        return [
            Window(start=starts[w], stop=starts[w + 1], containers=tuple(numbers[a:b]))
            for w, (a, b) in enumerate(pairwise(bounds))
        ]

    @property
    def containers_at_once(self) -> int:
        return int(np.diff(self._window_bounds).max(initial=0))


def epoch_order(
    mode: str,
    n: int,
    spans: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    window: int = DEFAULT_WINDOW,
    dead_ids: Ids | None = None,
) -> EpochOrder:
    """An order of the images of a data set.

    Args:
        mode: ``global``, ``blocks`` or ``sequential``.
        n: number of ids, tombstones among them.
        spans: the ids [start, stop) each container answers for.
        seed: decides the order, together with the epoch.
        window: containers that ``blocks`` shuffles together at most.
        dead_ids: tombstones, ascending; None where there are none.

    Raises:
        ValueError: an unknown mode, a window of no container, or containers that do not hold
            every image once.
    """
    if mode not in ORDERS:
        raise ValueError(f"order is {mode!r}; choose one of {', '.join(ORDERS)}")
    if window < 1:
        raise ValueError(f"window is {window}; blocks of at least 1 container are shuffled")
    live = LiveIds(n, dead_ids)
    of_containers = _Spans(live, spans)
    if int(of_containers.counts.sum()) != len(live):
        raise ValueError(
            f"the containers answer for {int(of_containers.counts.sum())} images, the index holds "
            f"{len(live)}: the manifest is damaged or of another ingest"
        )
    if mode == "global":
        return _Global(live, of_containers, seed)
    if mode == "sequential":
        return _Sequential(live, of_containers)
    return _Blocks(live, of_containers, seed, window)


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

    Over one epoch every id with an image comes exactly once across the ranks. Rank r takes every
    ``world``-th position, so the global batch at step s (all ranks' local batches together) is the
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
