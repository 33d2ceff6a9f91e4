"""Steps whose loss, gradients or features are not finite: counted, and when to give up."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch

from coke.distributed.host_copy import HostCopy
from coke.tools.training.learner import Place, Step


@dataclass(frozen=True, kw_only=True)
class _Unread:
    """A step whose outcome is on its way to the host: valid as 0 or 1, and the loss."""

    place: Place
    step: Step
    outcome: HostCopy

    def cause(self, loss: float) -> str:
        if self.step.loss is None:
            return "features are not finite"
        return f"loss is {loss}" if not math.isfinite(loss) else "gradients are not finite"

    def name(self) -> str:
        ids = self.step.ids
        shown = ", ".join(map(str, ids[:4].tolist())) + (", ..." if len(ids) > 4 else "")
        return (
            f"step {self.place.step} of epoch {self.place.epoch} (ids {shown}; learning rate "
            f"{self.step.lr:.3g})"
        )


class BadSteps:
    """Counts bad steps in a row. A GPU's steps are read one step late, so that it never runs empty.

    Args:
        limit: number of bad steps in a row that ends the run.
        in_a_row: number of bad steps before, of a run that is resumed.

    Attributes:
        in_a_row: bad steps since the last good one, of the steps read so far.
    """

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self._limit = limit
        self._unread: deque[_Unread] = deque()
        self.in_a_row = in_a_row

    def add(self, place: Place, step: Step) -> list[str]:
        """Takes a step. Returns a warning for each step now found to be bad.

        Raises:
            ValueError: there were too many in a row; the message says what to look at.
        """
        valid = step.valid.float()
        outcome = torch.stack([valid, valid if step.loss is None else step.loss.float()])
        self._unread.append(_Unread(place=place, step=step, outcome=HostCopy(outcome)))
        return self._read(leave=0 if step.valid.device.type == "cpu" else 1)

    def read_all(self) -> list[str]:
        """Waits for all steps taken so far. Returns and raises as :meth:`add` does."""
        return self._read(leave=0)

    def _read(self, leave: int) -> list[str]:
        warnings = []
        while len(self._unread) > leave:
            unread = self._unread.popleft()
            valid, loss = unread.outcome.read().tolist()
            if valid:
                self.in_a_row = 0
                continue
            self.in_a_row += 1
            if self.in_a_row >= self._limit:
                raise ValueError(
                    f"{self.in_a_row} steps in a row were skipped, the last of them "
                    f"{unread.name()}: {unread.cause(loss)}. Nothing of them is in the weights, "
                    "labels or centers. Look at: the learning rate (lower optimizer.lr, or longer "
                    "optimizer.warmup_epochs), the precision (--set machine.precision=fp32), the "
                    "temperature, and the images of these ids (coke inspect DATA --views). "
                    "Checkpoints from before are intact"
                )
            warnings.append(f"{unread.name()} is skipped: {unread.cause(loss)}")
        return warnings
