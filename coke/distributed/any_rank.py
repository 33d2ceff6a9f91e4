"""Whether any rank says yes: one number per step, summed over the ranks."""

from __future__ import annotations

import torch

from coke.distributed.host_copy import HostCopy
from coke.distributed.process_group import sum_over_ranks, world_size


class AnyRank:
    """Tells every rank whether any rank has said yes. All ranks call it equally often.

    With several ranks, a call returns the answer to the call before it: waiting for the new answer
    would leave the GPU without work.

    Args:
        device: device of this rank; a GPU for NCCL.
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
