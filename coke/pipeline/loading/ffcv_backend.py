"""The FFCV backend: FFCV's threads, decoder and resize; our order, ids and crops.

It exists to be compared with. It reads data sets that are one ``.beton`` and applies crop, flip
and normalisation. Each image is decoded once, whatever the number of views. Resizing is OpenCV's
area averaging, so pixels differ a little from the other backends'.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.containers.beton import Beton
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.images.jpeg import decode_problem
from coke.pipeline.loading.backend import Step, StepInputs

_DRAW_AT_ONCE = 1 << 16  # ids whose crops are drawn together; bounds the memory of drawing
_NOT_DONE = ("jitter_p", "gray_p", "blur_p", "solarize_p")
_BOX = ("top", "left", "height", "width", "flip")


class FfcvBackend:
    """See :class:`coke.pipeline.loading.backend.Backend`.

    Args:
        inputs: what the views are made of.
        batch_size: largest number of images of a step on this rank.
        device: where views end up.
        threads: FFCV's threads; all cores when None.

    Raises:
        ValueError: ffcv is not installed, the data set is not one beton, or a recipe asks for more
            than crop, flip and normalisation.
    """

    def __init__(
        self, inputs: StepInputs, *, batch_size: int, device: str, threads: int | None
    ) -> None:
        for v, recipe in enumerate(inputs.recipes):
            _check_recipe(v, recipe)
        beton, image_field = _only_beton(inputs.index)
        self._inputs = inputs
        self._device = torch.device(device)
        self._samples = _sample_of_id(inputs.index, beton, image_field)
        self._running: Any = None
        torch_threads = torch.get_num_threads()
        try:
            self._ffcv = _ffcv_loader(beton, image_field, inputs.recipes, batch_size, threads)
        finally:
            torch.set_num_threads(torch_threads)  # importing ffcv sets it to 1, its Loader again
        stored = beton.column(image_field)
        names = ("mode", "width", "height", "ptr")
        boxes = ("boxes", "<i4", (len(inputs.recipes), len(_BOX)))
        record = np.dtype([boxes, *((name, stored.dtype[name]) for name in names)])
        # FFCV hands its table of samples to the code of each batch. Ours also has the crops.
        self._table = np.zeros(len(beton), dtype=record)
        for name in names:
            self._table[name] = stored[name]
        position = [field.name for field in beton.fields].index(image_field)
        self._ffcv.reader.metadata = {f"f{position}": self._table}

    def stream(self, steps: Iterator[Step]) -> Iterator[list[Tensor]]:
        """Yields the views of each step. FFCV starts anew with each epoch.

        Raises:
            ValueError: a record cannot be decoded, FFCV's thread died, or another stream was
                started.
        """
        for epoch, of_epoch in itertools.groupby(steps, key=lambda step: step.epoch):
            yield from self._epoch([step.ids for step in of_epoch], epoch)

    def _epoch(self, batches: list[NDArray[np.int64]], epoch: int) -> Iterator[list[Tensor]]:
        self._stop()
        ids = np.concatenate(batches)
        self._draw_boxes(ids, epoch)
        self._ffcv.traversal_order.indices = self._samples[ids]
        torch_threads = torch.get_num_threads()
        self._running = mine = iter(self._ffcv)
        try:
            for ids in batches:
                flat = _next(mine)
                torch.set_num_threads(torch_threads)  # FFCV's thread sets it when it starts
                self._check_decoded(ids, flat)
                yield self._split(flat)
                if mine is not self._running:
                    raise ValueError(
                        "another epoch of this loader was started before this one ended"
                    )
        finally:
            if mine is self._running:
                self._stop()

    def _draw_boxes(self, ids: NDArray[np.int64], epoch: int) -> None:
        for first in range(0, len(ids), _DRAW_AT_ONCE):
            some = ids[first : first + _DRAW_AT_ONCE]
            boxes = [
                np.stack([getattr(drawn, name) for name in _BOX], axis=1)
                for drawn in self._inputs.parameters(Step(some, epoch))
            ]
            self._table["boxes"][self._samples[some]] = np.stack(boxes, axis=1)

    def _split(self, flat: NDArray[np.float32]) -> list[Tensor]:
        views, start = [], 0
        for recipe in self._inputs.recipes:
            s = recipe.size
            part_BHWC = flat[:, start : start + s * s * 3].reshape(-1, s, s, 3)
            # Copied, because FFCV writes the next batches into the same memory.
            views.append(torch.from_numpy(part_BHWC).clone().to(self._device).permute(0, 3, 1, 2))
            start += s * s * 3
        return views

    def _check_decoded(self, ids: NDArray[np.int64], flat: NDArray[np.float32]) -> None:
        """Raises where the decoder failed: FFCV itself goes on with whatever is in memory.

        Warnings of the decoder set its status, too, so the image is decoded once more.
        """
        for image_id in ids[flat[:, -1] != 0].tolist():
            problem = decode_problem(self._inputs.reader.read([image_id])[0].tobytes())
            if problem is not None:
                raise ValueError(
                    f"cannot decode {self._inputs.index.describe(image_id)}: {problem}"
                )

    def _stop(self) -> None:
        """Ends FFCV's thread, which would otherwise wait forever for room in its queue."""
        running, self._running = self._running, None
        if running is None:
            return
        running.close()
        while running.is_alive():
            while not running.output_queue.empty():
                running.output_queue.get()
            running.join(0.01)


def _next(running: Any) -> NDArray[np.float32]:
    """The next batch of FFCV. FFCV's own function would wait forever if its thread has died."""
    while True:
        alive = running.is_alive()
        if not running.output_queue.empty():
            batch: NDArray[np.float32] = next(running)[0]
            return batch
        if not alive:
            raise ValueError("FFCV's thread died; its error is on the standard error output")
        time.sleep(0.001)


def _check_recipe(v: int, recipe: ViewRecipe) -> None:
    wanted = [name for name in _NOT_DONE if getattr(recipe, name) > 0]
    if wanted:
        asked = ", ".join(f"{name}={getattr(recipe, name)}" for name in wanted)
        remedy = " ".join(f"--set data.view.{name}=0" for name in wanted)
        raise ValueError(
            f"loader ffcv crops, flips and normalises, nothing else, and view {v} has {asked}: "
            f"add {remedy}, or use loader dali"
        )


def _only_beton(index: ImageIndex) -> tuple[Beton, str]:
    containers = index.manifest.containers
    if index.remote is not None or index.manifest.storage != "ffcv" or len(containers) != 1:
        raise ValueError(
            f"loader ffcv reads a local data set that is one .beton; {index.location} is "
            f"{len(containers)} containers of format {index.manifest.storage}: "
            "`coke ingest --format ffcv --shard-size 0` makes one"
        )
    fields = index.manifest.settings.get("fields", {})
    return Beton(index.folder / containers[0].name), str(fields.get("image", "image"))


def _sample_of_id(index: ImageIndex, beton: Beton, image_field: str) -> NDArray[np.uint64]:
    """The sample of the beton that holds each id (N,); undefined for tombstones."""
    offsets = beton.images(image_field).offset
    order = np.argsort(offsets, kind="stable")
    at = np.searchsorted(offsets[order], index.rows["offset"])
    samples: NDArray[np.uint64] = order[np.minimum(at, len(order) - 1)].astype(np.uint64)
    wrong = (offsets[samples] != index.rows["offset"]) & (index.rows["length"] > 0)
    if wrong.any():
        raise ValueError(
            f"{beton.path} has no image where the index has {index.describe(int(wrong.argmax()))}; "
            f"`coke verify {index.folder}` tells more"
        )
    return samples


def _ffcv_loader(
    beton: Beton,
    image_field: str,
    recipes: tuple[ViewRecipe, ...],
    batch_size: int,
    threads: int | None,
) -> Any:
    try:
        import ffcv.loader
        from ffcv.pipeline import PipelineSpec

        from coke.pipeline.loading.ffcv_operation import views_operation
    except ImportError as error:
        raise ValueError(
            f"loader ffcv needs the ffcv library ({error}): `apt-get install libopencv-dev "
            "libturbojpeg0-dev pkg-config`, then `pip install 'coke[ffcv]'`"
        ) from error

    pipelines: dict[str, Any] = {field.name: None for field in beton.fields}
    pipelines[image_field] = PipelineSpec(image_field, decoder=views_operation(recipes))
    return ffcv.loader.Loader(
        str(beton.path),
        batch_size=batch_size,
        num_workers=threads or len(os.sched_getaffinity(0)),
        os_cache=True,
        order=ffcv.loader.OrderOption.SEQUENTIAL,  # each epoch sets the sequence of indices
        drop_last=False,
        pipelines=pipelines,
    )
