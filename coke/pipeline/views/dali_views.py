"""Views from DALI: batches are fed to the graph ahead of the consumer, and taken out as tensors."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.views.dali import views_pipeline
from coke.pipeline.views.dali_inputs import graph_inputs
from coke.pipeline.views.draw import ViewParameters, draw

_QUEUE_DEPTH = 3  # batches in flight: two while one is copied out; each costs a batch of memory


class DaliViews:
    """Decodes and augments batches in DALI's own threads, ahead of the consumer.

    Args:
        recipes: one per view.
        batch_size: largest batch that will come.
        device: ``"cpu"`` or ``"cuda"`` / ``"cuda:N"``.
        threads: DALI's CPU threads.
    """

    def __init__(
        self, recipes: Sequence[ViewRecipe], *, batch_size: int, device: str, threads: int
    ) -> None:
        self.recipes = tuple(recipes)
        self._on_gpu = device != "cpu"
        self._device = torch.device(device)
        self._queued = 0  # batches fed and not yet taken out
        self._turn = 0  # number of the stream that the queue belongs to
        self._pipe = views_pipeline(
            self.recipes,
            self._on_gpu,
            batch_size=batch_size,
            num_threads=threads,
            device_id=(self._device.index or 0) if self._on_gpu else None,
            prefetch_queue_depth=_QUEUE_DEPTH,
        )
        self._warm_up()

    def stream(
        self, batches: Iterator[tuple[list[NDArray[np.uint8]], list[ViewParameters]]]
    ) -> Iterator[list[Tensor]]:
        """Yields, per batch, the views as (B, 3, S, S) float32 tensors in channels_last memory.

        Feeding runs ahead by the queue depth. Batches of an abandoned stream are drained before the
        next one starts; continuing the abandoned one is an error.

        Raises:
            ValueError: another stream was started.
            RuntimeError: DALI cannot decode an image.
        """
        self._drain()
        self._turn += 1
        turn = self._turn
        for _ in range(_QUEUE_DEPTH):
            self._feed_next(batches)
        while self._queued:
            outputs = self._pipe.share_outputs(cuda_stream=self._stream())
            self._queued -= 1
            views = [self._to_torch(out) for out in outputs]
            self._pipe.release_outputs()
            self._feed_next(batches)
            yield views
            if turn != self._turn:
                raise ValueError("another epoch of this loader was started before this one ended")

    def _stream(self) -> Any:
        """The CUDA stream that copies outputs: DALI reuses a buffer only after that copy."""
        return torch.cuda.current_stream(self._device) if self._on_gpu else None

    def _drain(self) -> None:
        while self._queued:
            self._queued -= 1
            self._pipe.share_outputs()
            self._pipe.release_outputs()

    def _feed_next(
        self, batches: Iterator[tuple[list[NDArray[np.uint8]], list[ViewParameters]]]
    ) -> None:
        batch = next(batches, None)
        if batch is not None:
            self._feed(*batch)
            self._pipe.schedule_run()
            self._queued += 1

    def _warm_up(self) -> None:
        """Runs the graph on a tiny image, so that mistakes show now.

        The first ``schedule_run`` of a pipeline also starts as many runs as its queue is deep. It
        fails where fewer batches were fed, and an epoch may have just one.
        """
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, "JPEG")
        encoded = [np.frombuffer(buffer.getvalue(), dtype=np.uint8)]
        one, side = np.zeros(1, dtype=np.int64), np.full(1, 16, dtype=np.int64)
        drawn = [
            draw(r, seed=0, epoch=0, view=v, ids=one, heights=side, widths=side)
            for v, r in enumerate(self.recipes)
        ]
        for _ in range(_QUEUE_DEPTH):
            self._feed(encoded, drawn)
        self._pipe.schedule_run()
        for _ in range(_QUEUE_DEPTH):
            self._pipe.share_outputs()
            self._pipe.release_outputs()

    def _feed(self, encoded: list[NDArray[np.uint8]], parameters: list[ViewParameters]) -> None:
        self._pipe.feed_input("encoded", encoded)
        for name, value in graph_inputs(self.recipes, parameters, self._on_gpu).items():
            self._pipe.feed_input(name, value)

    def _to_torch(self, output: Any) -> Tensor:
        # Copied, because DALI reuses its buffer. Views leave the graph as HWC, which torch sees as
        # NCHW in channels_last memory without moving a byte.
        dali_BHWC = from_dlpack(output.as_tensor())
        if self._on_gpu:
            return dali_BHWC.clone().permute(0, 3, 1, 2)
        # numpy asks the kernel for huge pages: a clone in torch's memory takes three times as long
        # at 224 pixels, most of it page faults.
        views_BHWC = torch.from_numpy(np.empty(dali_BHWC.shape, dtype=np.float32))
        return views_BHWC.copy_(dali_BHWC).permute(0, 3, 1, 2)
