"""The DALI backend: decodes and augments in DALI's threads, or on the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

from torch import Tensor

from coke.pipeline.loading.backend import Step, StepInputs
from coke.pipeline.views import dali
from coke.pipeline.views.dali_views import DaliViews

DALI_MISSING = (
    "NVIDIA DALI is not installed; `pip install nvidia-dali-cuda130` brings it, also to machines "
    "without a GPU (nvidia-dali-cuda120 for older drivers); or use --loader pil, which is slow"
)


class DaliBackend:
    """See :class:`coke.pipeline.loading.backend.Backend`.

    Args:
        inputs: what the views are made of.
        batch_size: largest number of images of a step on this rank.
        device: where views end up, ``"cpu"`` or ``"cuda"`` / ``"cuda:N"``.
        threads: DALI's CPU threads; all cores when None.

    Raises:
        ValueError: DALI is not installed.
    """

    def __init__(
        self, inputs: StepInputs, *, batch_size: int, device: str, threads: int | None
    ) -> None:
        if not dali.AVAILABLE:
            raise ValueError(DALI_MISSING)
        self._inputs = inputs
        self._views = DaliViews(
            inputs.recipes,
            batch_size=batch_size,
            device=device,
            threads=threads or len(os.sched_getaffinity(0)),
        )

    def stream(self, steps: Iterator[Step]) -> Iterator[list[Tensor]]:
        """Yields the views of each step; reads a few steps ahead."""
        return self._views.stream(self._inputs.read(steps))
