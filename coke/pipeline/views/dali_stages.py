"""The two halves of the DALI graph, each alone, so that a benchmark can time them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.views import dali
from coke.pipeline.views.dali_inputs import graph_inputs
from coke.pipeline.views.draw import ViewParameters

if dali.AVAILABLE:
    from nvidia.dali import fn, pipeline_def, types


class DaliStages:
    """Decodes a batch, or augments a decoded one, and waits for it, without reading ahead.

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
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "num_threads": threads,
            "device_id": (torch.device(device).index or 0) if self._on_gpu else None,
            "prefetch_queue_depth": 1,
        }
        self._decoding = _decoding(self._on_gpu, **options)
        self._augmenting = _augmenting(self.recipes, self._on_gpu, **options)
        self._decoding_reads: frozenset[str] = frozenset()
        if not self._on_gpu:
            self._decoding_reads = frozenset({"region_anchor", "region_shape"})

    def decode(
        self, encoded: Sequence[NDArray[np.uint8]], parameters: Sequence[ViewParameters]
    ) -> Any:
        """Pixels of a batch, as a DALI tensor list on the device, for :meth:`augment`.

        The memory is DALI's own; the next call overwrites it.
        """
        self._decoding.feed_input("encoded", list(encoded))
        for name, value in self._inputs(parameters).items():
            if name in self._decoding_reads:
                self._decoding.feed_input(name, value)
        return self._decoding.run()[0]

    def augment(self, pixels: Any, parameters: Sequence[ViewParameters]) -> Any:
        """Views of a decoded batch, one DALI tensor list per view."""
        self._augmenting.feed_input("pixels", pixels)
        for name, value in self._inputs(parameters).items():
            if name not in self._decoding_reads:
                self._augmenting.feed_input(name, value)
        return self._augmenting.run()

    def _inputs(self, parameters: Sequence[ViewParameters]) -> dict[str, NDArray[Any]]:
        return graph_inputs(self.recipes, parameters, self._on_gpu)


def _decoding(on_gpu: bool, **options: Any) -> Any:
    return _decoding_graph(on_gpu, **options)


def _augmenting(recipes: tuple[ViewRecipe, ...], on_gpu: bool, **options: Any) -> Any:
    return _augmenting_graph(recipes, on_gpu, **options)


if dali.AVAILABLE:

    @pipeline_def  # type: ignore[untyped-decorator]
    def _decoding_graph(on_gpu: bool) -> Any:
        return dali.decoded(on_gpu)

    @pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
    def _augmenting_graph(recipes: tuple[ViewRecipe, ...], on_gpu: bool) -> Any:
        pixels = fn.external_source(
            name="pixels",
            device="gpu" if on_gpu else "cpu",
            dtype=types.UINT8,
            ndim=3,
            layout="HWC",
            no_copy=True,  # the caller keeps the decoder's memory
        )
        return dali.augmented(recipes, on_gpu, pixels)
