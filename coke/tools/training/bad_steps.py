"""Steps whose loss, gradients or features are not finite: counted, and when to give up."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from coke.distributed.host_copy import HostCopy


@dataclass(frozen=True, kw_only=True)
class _Step:
    epoch: int
    step: int
    ids: Tensor
    lr: float
    scan: bool
    verdict: HostCopy  # finite as 0 or 1, and the loss

    def what(self, loss: float) -> str:
        if self.scan:
            return "features are not finite"
        return f"loss is {loss}" if not math.isfinite(loss) else "gradients are not finite"

    def where(self) -> str:
        shown = ", ".join(map(str, self.ids[:4].tolist())) + (", ..." if len(self.ids) > 4 else "")
        return f"step {self.step} of epoch {self.epoch} (ids {shown}; learning rate {self.lr:.3g})"


class BadSteps:
    """Counts bad steps in a row. A GPU's are read one step late, so that it never runs empty.

    Args:
        limit: how many in a row end the run.
        in_a_row: how many there were before, of a run that is resumed.
    """

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self._limit = limit
        self._unread: deque[_Step] = deque()
        self.in_a_row = in_a_row  # of the steps read so far

    def judge(
        self,
        finite: Tensor,
        loss: Tensor | None,
        *,
        epoch: int,
        step: int,
        ids: Tensor,
        lr: float,
    ) -> list[str]:
        """Notes a step. Returns what to tell the user of each step now found to be bad.

        Args:
            finite: () bool, whether the step counts.
            loss: (), None for the scan.
            step: of the epoch, from 0.
            ids: (B,) int64 of the batch, on the host.

        Raises:
            ValueError: there were too many in a row; the message says what to look at.
        """
        verdict = torch.stack([finite.float(), finite.float() if loss is None else loss.float()])
        self._unread.append(
            _Step(
                epoch=epoch,
                step=step,
                ids=ids,
                lr=lr,
                scan=loss is None,
                verdict=HostCopy(verdict),
            )
        )
        return self._read(leave=0 if finite.device.type == "cpu" else 1)

    def settle(self) -> list[str]:
        """Reads all steps noted so far, which waits for them; returns and raises as ``judge``."""
        return self._read(leave=0)

    def _read(self, leave: int) -> list[str]:
        told = []
        while len(self._unread) > leave:
            step = self._unread.popleft()
            finite, loss = step.verdict.read().tolist()
            if finite:
                self.in_a_row = 0
                continue
            self.in_a_row += 1
            if self.in_a_row >= self._limit:
                raise ValueError(
                    f"{self.in_a_row} steps in a row were skipped, the last of them "
                    f"{step.where()}: {step.what(loss)}. Nothing of them is in the weights, labels "
                    "or centers. Look at: the learning rate (lower optimizer.lr, or longer "
                    "optimizer.warmup_epochs), the precision (--set machine.precision=fp32), the "
                    "temperature, and the images of these ids (coke inspect DATA --views). "
                    "Checkpoints from before are intact"
                )
            told.append(f"{step.where()} is skipped: {step.what(loss)}")
        return told
