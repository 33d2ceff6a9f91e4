"""Where a run goes on: the part of a checkpoint that is not what was learned."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """Where a run goes on.

    Nothing in it depends on the number of processes: the loader's position counts the images of all
    ranks together.

    Attributes:
        epoch: the epoch of the next step.
        step: steps of that epoch that were taken.
        loader: :meth:`coke.pipeline.loading.loader.Loader.state` within an epoch, None at its
            start. It counts images that were consumed, not those that were prefetched.
        meter: :meth:`coke.tools.training.meter.EpochMeter.state` within an epoch.
        bad_in_a_row: steps that were skipped since the last good one.
    """

    epoch: int = 0
    step: int = 0
    loader: dict[str, int] | None = None
    meter: dict[str, Any] | None = None
    bad_in_a_row: int = 0

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint. ``epoch`` in it is the epoch that the weights were last trained in."""
        return {
            "epoch": self.epoch if self.step else self.epoch - 1,
            "progress": {f.name: getattr(self, f.name) for f in fields(self)},
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """The point that a checkpoint holds."""
        return cls(**state["progress"])
