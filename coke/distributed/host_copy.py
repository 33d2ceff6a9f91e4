"""Copying a few numbers from the device to the host without waiting."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy that starts now and is read a step later, so that the GPU always has work.

    ``float(tensor)`` waits until the GPU has done everything in its queue. The queue is then empty,
    and the GPU idles until the host fills it. Reading a copy of the step before waits for that step
    alone, while the GPU works on the next one.

    Args:
        values: a tensor of any shape. On the CPU it is not copied: do not change it before
            :meth:`read`.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> Tensor:
        """The numbers on the host. Waits for this copy, not for work that was queued later."""
        if self._event is not None:
            self._event.synchronize()
        return self._values
