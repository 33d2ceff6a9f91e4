"""A yes of one rank, made known to all: one number a step, asked for ahead of time."""

from __future__ import annotations

import torch

from coke.distributed.host_copy import HostCopy
from coke.distributed.process_group import sum_over_ranks, world_size


class AnyRank:
    """Whether any rank has said yes, by a call on every rank at the same points of the program.

    With several ranks the answer is to the question of the call before: reading the new one would
    let a GPU run empty.

    Args:
        device: of this rank; a GPU for NCCL.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked: HostCopy | None = None

    def __call__(self, mine: bool) -> bool:
        if world_size() == 1:
            return mine
        answer = self._asked is not None and bool(self._asked.read() > 0)
        self._asked = HostCopy(sum_over_ranks(torch.full((), float(mine), device=self._device)))
        return answer
