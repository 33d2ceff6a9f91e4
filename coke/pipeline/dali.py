"""A view recipe as a DALI graph: encoded bytes and drawn parameters in, views out.

The graph holds no randomness and no order, so it has no state to save. The same code builds it
for the CPU and the GPU; only the decoder differs (``cpu`` or ``mixed``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from coke.pipeline.recipe import ViewParameters, ViewRecipe, draw

try:
    from nvidia.dali import fn, math, pipeline_def, types
    from nvidia.dali.pipeline import Pipeline
except ImportError:  # the loader says what to install, or runs the reference recipe (macOS)
    AVAILABLE = False
else:
    AVAILABLE = True

_PARAMETERS = tuple(f.name for f in fields(ViewParameters))
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
        self._turn = 0  # which stream the queue belongs to
        self._pipe = _views_pipeline(
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

        Feeding runs ahead by the queue depth. What an abandoned stream had fed is drained before
        the next one starts; continuing the abandoned one is an error, not a mix of both.
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
                raise RuntimeError("another epoch of this loader was started before this one ended")

    def _stream(self) -> Any:
        """The stream that copies outputs: DALI frees a buffer only after what is queued there."""
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
        """Runs the graph on a tiny image: mistakes show now, and DALI's first run is special.

        The first ``schedule_run`` of a pipeline starts as many runs as its queue is deep and fails
        where fewer batches were fed; an epoch may hold just one.
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
        for v, drawn in enumerate(parameters):
            for name in _PARAMETERS:
                self._pipe.feed_input(f"{name}_{v}", getattr(drawn, name))

    def _to_torch(self, output: Any) -> Tensor:
        # The copy makes the batch ours whatever DALI does with its buffer. Views leave the graph
        # as HWC, which torch sees as NCHW in channels_last memory without moving a byte.
        views_BHWC = from_dlpack(output.as_tensor()).clone()
        return views_BHWC.permute(0, 3, 1, 2)


def _views_pipeline(recipes: tuple[ViewRecipe, ...], on_gpu: bool, **options: Any) -> Pipeline:
    return _graph(recipes, on_gpu, **options)


if AVAILABLE:

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def _graph(recipes: tuple[ViewRecipe, ...], on_gpu: bool) -> Any:
        encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
        decoder = "mixed" if on_gpu else "cpu"
        whole = None
        # Several views share one decode. On a GPU one view does too: decoding a region is reported
        # to crash the H100's decoder (nvimgcodec 0.9).
        if on_gpu or len(recipes) > 1:
            whole = fn.decoders.image(
                encoded, device=decoder, output_type=types.RGB, adjust_orientation=False
            )
        return tuple(
            _view(recipe, v, encoded, whole, decoder, on_gpu) for v, recipe in enumerate(recipes)
        )

    def _parameter(name: str, view: int) -> Any:
        whole = name in ("top", "left", "height", "width", "flip")
        return fn.external_source(
            name=f"{name}_{view}", device="cpu", dtype=types.INT32 if whole else types.FLOAT, ndim=0
        )

    def _view(
        recipe: ViewRecipe, v: int, encoded: Any, whole: Any, decoder: str, on_gpu: bool
    ) -> Any:
        p = {name: _parameter(name, v) for name in _PARAMETERS}
        anchor = fn.stack(p["top"], p["left"])
        shape = fn.stack(p["height"], p["width"])
        if whole is None:  # one view: only the crop's rows and columns are decoded
            crop = fn.decoders.image_slice(
                encoded,
                anchor,
                shape,
                device=decoder,
                output_type=types.RGB,
                adjust_orientation=False,
                axes=[0, 1],
                normalized_anchor=False,
                normalized_shape=False,
            )
        else:
            crop = fn.slice(
                whole, anchor, shape, axes=[0, 1], normalized_anchor=False, normalized_shape=False
            )
        image = fn.resize(
            crop, size=[recipe.size, recipe.size], interp_type=types.INTERP_LINEAR, antialias=True
        )
        image = _colour(image, p["brightness"], p["contrast"], p["saturation"], p["hue_degrees"])
        image = _blur(image, p["blur_sigma"])
        return fn.crop_mirror_normalize(
            image,
            mirror=p["flip"],
            mean=[255 * m for m in recipe.mean],
            std=[255 * s for s in recipe.std],
            output_layout="HWC",
            dtype=types.FLOAT,
        )

    def _colour(image: Any, brightness: Any, contrast: Any, saturation: Any, hue: Any) -> Any:
        changed = (brightness != 1.0) | (contrast != 1.0) | (saturation != 1.0) | (hue != 0.0)
        if changed:
            out = fn.color_twist(
                image, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
            )
        else:
            out = image
        return out

    def _blur(image: Any, sigma: Any) -> Any:
        # A real conditional: masking would blur every image and throw most of it away. A sigma
        # below 0.25 moves no pixel by half a grey level (neighbours weigh 0.03 %).
        if sigma > 0.25:
            # The cost is linear in the window. 2.5 sigma to each side hold 98.8 % of the kernel,
            # which is renormalised; DALI's default of 3 sigma costs a seventh more.
            radius = fn.cast(math.ceil(2.5 * sigma), dtype=types.INT32)
            out = fn.gaussian_blur(image, sigma=sigma, window_size=2 * radius + 1)
        else:
            out = image
        return out
