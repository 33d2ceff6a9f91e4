"""What an order is: the ids at any positions of an epoch, and the containers that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coke.pipeline.order.live_ids import LiveIds
from coke.pipeline.order.permutation import Ids


@dataclass(frozen=True, kw_only=True)
class Window:
    """Positions [start, stop) of an epoch need these containers, by number, and no others."""

    start: int
    stop: int
    containers: tuple[int, ...]


class EpochOrder:
    """An order of the images of a data set; made by ``order.epoch_order``.

    ``len()`` is the number of positions of an epoch: images, not ids.

    Attributes:
        mode: one of ``order.ORDERS``.
        window: largest number of containers that are shuffled together; 0 where it has no effect.
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
        """The containers that each range of positions needs; ranges follow without gaps."""
        raise NotImplementedError

    @property
    def containers_at_once(self) -> int:
        """Largest number of containers of a window."""
        raise NotImplementedError
