"""The order ``blocks``: a few containers are read at a time, and shuffled together.

The containers are permuted and read in windows of a few; the images of a window are permuted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from coke.pipeline.order.epoch_order import EpochOrder, Window
from coke.pipeline.order.live_ids import ContainerSpans, LiveIds
from coke.pipeline.order.permutation import Ids, keyed_permutation

_CONTAINERS = 0xC047  # keys of the permutation of containers
_WINDOW = 0x91D0  # keys of the permutations inside windows


@dataclass(frozen=True, kw_only=True)
class _BlockPlan:
    """One epoch of ``blocks``: arrays over the containers, in the sequence they are read in."""

    spans: Ids  # (C,) the container, as a row of ContainerSpans
    starts: Ids  # (C + 1,) position of a container's first image before windows are shuffled
    windows: Ids  # (W + 1,) the first container of each window


class BlockOrder(EpochOrder):
    mode = "blocks"

    def __init__(self, live: LiveIds, spans: ContainerSpans, seed: int, window: int) -> None:
        super().__init__(live)
        self._spans, self._seed, self.window = spans, seed, window
        # Windows of nearly equal size: a small rest at the end would hardly be shuffled.
        n_containers = len(spans.numbers)
        n_windows = -(-n_containers // window)
        self._window_bounds = np.arange(n_windows + 1) * n_containers // max(n_windows, 1)
        self._plan = lru_cache(maxsize=2)(self._make_plan)  # two epochs meet where one ends

    def _make_plan(self, epoch: int) -> _BlockPlan:
        n = len(self._spans.numbers)
        spans = keyed_permutation(np.arange(n), n, self._seed, epoch, _CONTAINERS)
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
            local = keyed_permutation(
                positions[inside] - start, stop - start, self._seed, epoch, _WINDOW, w
            )
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
