"""The loader's stages, each alone: bytes by id, decode, augment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.order.order import epoch_order
from coke.pipeline.views import dali
from coke.pipeline.views.draw import draw
from coke.tools.bench.timing import images_per_second

LOADING_STAGES = ("bytes by id", "decode", "augment")


class LoadingStages:
    """Times the stages on batches of the run's own order.

    Decode and augment work on bytes that are in memory, and wait for every batch. They are timed
    where DALI does them; the reference and FFCV decode and augment in one.
    """

    def __init__(
        self,
        config: Config,
        index: ImageIndex,
        recipes: Sequence[ViewRecipe],
        device: torch.device,
    ) -> None:
        self._device = device
        self._batch_size = config.data.batch_size
        self._reader = RecordReader(index, cache_gb=config.machine.cache_gb)
        self._ids = self._batches(config, index)
        ids = next(self._ids)
        heights = index.rows["height"][ids].astype(np.int64)
        widths = index.rows["width"][ids].astype(np.int64)
        self._drawn = [
            draw(r, seed=config.seed, epoch=1, view=v, ids=ids, heights=heights, widths=widths)
            for v, r in enumerate(recipes)
        ]
        self._encoded = [encoded.copy() for encoded in self._reader.read(ids)]
        self._dali = None
        if dali.AVAILABLE and config.data.loader in ("auto", "dali"):
            from coke.pipeline.views.dali_stages import DaliStages

            self._dali = DaliStages(
                recipes,
                batch_size=config.data.batch_size,
                device=str(device),
                threads=config.machine.threads or len(os.sched_getaffinity(0)),
            )

    def milliseconds(self, seconds: float) -> dict[str, float]:
        """Milliseconds per batch of each stage that can be timed, each repeated for a while."""
        found = {"bytes by id": self._time(self._read, seconds)}
        if self._dali is not None:
            stages, drawn = self._dali, self._drawn
            found["decode"] = self._time(lambda: stages.decode(self._encoded, drawn), seconds)
            pixels = stages.decode(self._encoded, drawn)
            found["augment"] = self._time(lambda: stages.augment(pixels, drawn), seconds)
        return found

    def _read(self) -> None:
        """Reads a batch, and touches every page of it: the reader hands out maps of files."""
        for encoded in self._reader.read_checked(next(self._ids)):
            encoded[::4096].sum()

    def _time(self, work: Callable[[], object], seconds: float) -> float:
        def batch() -> int:
            work()
            return self._batch_size

        return 1000 * self._batch_size / images_per_second(batch, seconds, self._device)

    @staticmethod
    def _batches(config: Config, index: ImageIndex) -> Iterator[NDArray[np.int64]]:
        order = epoch_order(
            config.data.order,
            len(index),
            [(c.start, c.stop) for c in index.manifest.containers],
            seed=config.seed,
            window=config.data.window,
            live=index.live,
        )
        epoch = 0
        while True:
            for start in range(0, len(order) - config.data.batch_size + 1, config.data.batch_size):
                yield order.ids(epoch, np.arange(start, start + config.data.batch_size))
            epoch += 1
