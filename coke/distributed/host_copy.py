"""A few numbers of the device, on their way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """Numbers that are read a step after they were asked for, so that the GPU never runs empty.

    ``float(tensor)`` of a GPU's tensor waits until the GPU has done all that was queued before it;
    then its queue is empty, and it idles until the host has queued more. A copy that was queued a
    step ago is waited for until the step before has ended at most, and the GPU has the next one to
    do meanwhile.

    Args:
        values: of any shape and device. They must not change on the CPU until they are read.
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
        """The numbers, on the host. Waits for this copy alone, not for what was queued later."""
        if self._event is not None:
            self._event.synchronize()
        return self._values
