"""Steps that were skipped because a number in them was not finite, and when to give up."""

from __future__ import annotations

from torch import Tensor

from coke.model.finite import NonFiniteStep


class BadSteps:
    """Counts skipped steps in a row.

    Args:
        limit: how many end the run.
        in_a_row: how many there were before, of a run that is resumed.
    """

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self._limit = limit
        self.in_a_row = in_a_row

    def good(self) -> None:
        self.in_a_row = 0

    def skipped(self, bad: NonFiniteStep, epoch: int, step: int, ids: Tensor, lr: float) -> str:
        """Counts one. Returns what to tell the user.

        Args:
            step: of the epoch, from 0.
            ids: (B,) int64 of the batch.

        Raises:
            ValueError: it was the last of too many; the message says what to look at.
        """
        self.in_a_row += 1
        shown = ", ".join(map(str, ids[:4].tolist())) + (", ..." if len(ids) > 4 else "")
        where = f"step {step} of epoch {epoch} (ids {shown}; learning rate {lr:.3g})"
        if self.in_a_row >= self._limit:
            raise ValueError(
                f"{self.in_a_row} steps in a row were skipped, the last of them {where}: {bad}. "
                "Nothing of them is in the weights, labels or centers. Look at: the learning rate "
                "(lower optimizer.lr, or longer optimizer.warmup_epochs), the precision "
                "(--set precision=fp32), the temperature, and the images of these ids "
                "(coke inspect DATA --views). Checkpoints from before are intact"
            )
        return f"{where} is skipped: {bad}"
