"""The PIL backend: the reference views, for machines where DALI has no wheel.

It is slow: one thread, and no reading ahead.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from coke.pipeline.loading.backend import Step, StepInputs
from coke.pipeline.views.pil_reference import PilViews


class PilBackend:
    """See :class:`coke.pipeline.loading.backend.Backend`; views are on the CPU."""

    def __init__(self, inputs: StepInputs) -> None:
        self._inputs = inputs
        self._views = PilViews(inputs.recipes)

    def stream(self, steps: Iterator[Step]) -> Iterator[list[Tensor]]:
        """Yields the views of each step."""
        return self._views.stream(self._inputs.read(steps))
