"""Ids that have an image, counted without the tombstones between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coke.pipeline.order.permutation import Ids


class LiveIds:
    """The ids that have an image, counted: gives the i-th of them without listing them.

    Args:
        n: number of ids.
        dead_ids: tombstones (n_dead,), ascending; None where there are none. Memory is of their
            number, whatever n is.
        live_ids: the ids themselves (n_live,), ascending, instead of ``dead_ids``. Memory is of
            their number, which suits a few ids of many.
    """

    def __init__(self, n: int, dead_ids: Ids | None = None, live_ids: Ids | None = None) -> None:
        assert dead_ids is None or live_ids is None, "one says what the other says"
        self._live = live_ids
        self._dead = np.zeros(0, dtype=np.int64) if dead_ids is None else dead_ids
        # The live id of ordinal r has as many tombstones below it as there are j with
        # dead[j] - j <= r.
        self._shifts = self._dead - np.arange(len(self._dead))
        self._n = n - len(self._dead) if live_ids is None else len(live_ids)

    def __len__(self) -> int:
        return self._n

    def at(self, ordinals: Ids) -> Ids:
        """The ids of the ``ordinals``-th images (counted from 0)."""
        if self._live is not None:
            return self._live[ordinals]
        if len(self._dead) == 0:
            return ordinals
        return ordinals + np.searchsorted(self._shifts, ordinals, side="right")

    def before(self, ids: Ids) -> Ids:
        """How many images have an id below each of these ids, which may be n."""
        if self._live is not None:
            return np.searchsorted(self._live, ids, side="left")
        return ids - np.searchsorted(self._dead, ids, side="left")


class ContainerSpans:
    """Which images each container holds, as ordinals among the ids that have an image.

    A container of tombstones only is left out.

    Attributes:
        numbers: (C,) number of each container.
        firsts: (C,) ordinal of its first image.
        counts: (C,) number of its images.
    """

    def __init__(self, live: LiveIds, spans: Sequence[tuple[int, int]]) -> None:
        bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
        firsts = live.before(bounds[:, 0])
        counts = live.before(bounds[:, 1]) - firsts
        self.numbers = np.flatnonzero(counts)
        self.firsts, self.counts = firsts[self.numbers], counts[self.numbers]
