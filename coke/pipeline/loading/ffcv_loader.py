"""FFCV's own loader behind our interface, to compare with: its threads, decoder and resize; our
order, ids and crops.

It reads data sets that are one `.beton` and applies crop, flip and normalisation. Each image is
decoded once, whatever the number of views. Resizing is OpenCV's area averaging, so pixels differ a
little from the other loaders'.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.containers.beton import Beton
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.images.jpeg import decode_problem
from coke.pipeline.loading.loader import Batch, Loader

_DRAW_AT_ONCE = 1 << 16  # ids whose crops are drawn together: what bounds the memory of drawing
_NOT_DONE = ("jitter_p", "gray_p", "blur_p", "solarize_p")
_BOX = ("top", "left", "height", "width", "flip")


class FfcvLoader(Loader):
    """Same interface as :class:`coke.pipeline.loading.loader.Loader`; see ``build_loader``.

    Args:
        device: where views end up.
        threads: FFCV's threads; all cores when None.

    Raises:
        ValueError: ffcv is not installed, the data set is not one beton, or a recipe asks for more
            than crop, flip and normalisation.
    """

    def __init__(
        self,
        index: ImageIndex,
        recipes: Sequence[ViewRecipe],
        *,
        device: str,
        threads: int | None,
        **common: Any,
    ) -> None:
        super().__init__(index, recipes, engine=None, **common)
        for v, recipe in enumerate(recipes):
            _check_recipe(v, recipe)
        beton, image_field = _only_beton(index)
        self._device = torch.device(device)
        self._samples = _sample_of_id(index, beton, image_field)
        self._running: Any = None
        torch_threads = torch.get_num_threads()
        try:
            self._ffcv = _ffcv_loader(
                beton, image_field, self.recipes, self.batch_size // common["world"], threads
            )
        finally:
            torch.set_num_threads(torch_threads)  # importing ffcv sets it to 1, its Loader again
        record = np.dtype(
            [
                ("boxes", "<i4", (len(recipes), len(_BOX))),
                *((name, beton.column(image_field).dtype[name]) for name in ("mode", "width")),
                *((name, beton.column(image_field).dtype[name]) for name in ("height", "ptr")),
            ]
        )
        # FFCV hands each batch's code the table of samples: ours has the crops of the epoch in it.
        self._table = np.zeros(len(beton), dtype=record)
        for name in ("mode", "width", "height", "ptr"):
            self._table[name] = beton.column(image_field)[name]
        position = [field.name for field in beton.fields].index(image_field)
        self._ffcv.reader.metadata = {f"f{position}": self._table}

    def epochs(self) -> Iterator[Batch]:
        """Batches of epoch 0, 1, 2, ... without end; FFCV starts each epoch anew."""
        return itertools.chain.from_iterable(self.epoch(epoch) for epoch in itertools.count())

    def _batches(self, steps: Iterator[tuple[NDArray[np.int64], int]]) -> Iterator[Batch]:
        planned = list(steps)
        if not planned:
            return
        self._stop()
        ids, (_, epoch) = np.concatenate([ids for ids, _ in planned]), planned[0]
        self._draw_boxes(ids, epoch)
        self._ffcv.traversal_order.indices = self._samples[ids]
        torch_threads = torch.get_num_threads()
        self._running = mine = iter(self._ffcv)
        try:
            for ids, _ in planned:
                flat = _next(mine)
                torch.set_num_threads(torch_threads)  # FFCV's thread sets it when it starts
                self._check_decoded(ids, flat)
                yield Batch(ids=torch.from_numpy(ids), views=self._split(flat))
                if mine is not self._running:
                    raise RuntimeError(
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
                for drawn in self._draw(some, epoch)
            ]
            self._table["boxes"][self._samples[some]] = np.stack(boxes, axis=1)

    def _split(self, flat: NDArray[np.float32]) -> list[Tensor]:
        views, start = [], 0
        for recipe in self.recipes:
            s = recipe.size
            part_BHWC = flat[:, start : start + s * s * 3].reshape(-1, s, s, 3)
            # A copy, because FFCV writes the next batches into the same memory.
            views.append(torch.from_numpy(part_BHWC).clone().to(self._device).permute(0, 3, 1, 2))
            start += s * s * 3
        return views

    def _check_decoded(self, ids: NDArray[np.int64], flat: NDArray[np.float32]) -> None:
        """FFCV itself goes on with whatever was in memory. Mere warnings set the status, too."""
        for image_id in ids[flat[:, -1] != 0].tolist():
            problem = decode_problem(self._reader.read([image_id])[0].tobytes())
            if problem is not None:
                raise ValueError(f"cannot decode {self.index.describe(image_id)}: {problem}")

    def _stop(self) -> None:
        """Ends FFCV's thread, which would wait forever for room in its queue."""
        running, self._running = self._running, None
        if running is None:
            return
        running.close()
        while running.is_alive():
            while not running.output_queue.empty():
                running.output_queue.get()
            running.join(0.01)


def _next(running: Any) -> NDArray[np.float32]:
    """The next batch of FFCV; unlike FFCV's own, this ends when its thread has died."""
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
    """Which sample of the beton holds each id (N,); of tombstones it means nothing."""
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


def _write_view(crop: Any, flip: int, normalised: Any, out: Any) -> None:
    """Normalises a crop (S, S, 3) into ``out`` (S * S * 3,), mirrored where ``flip``."""
    side = crop.shape[0]
    for y in range(side):
        for x in range(side):
            seen = side - 1 - x if flip else x
            for c in range(3):
                out[(y * side + x) * 3 + c] = normalised[crop[y, seen, c], c]


def _ffcv_loader(
    beton: Beton,
    image_field: str,
    recipes: tuple[ViewRecipe, ...],
    batch_size: int,
    threads: int | None,
) -> Any:
    try:
        import ffcv.loader
        from ffcv.fields.rgb_image import Operation
        from ffcv.libffcv import imdecode, resize_crop
        from ffcv.pipeline import PipelineSpec
        from ffcv.pipeline.allocation_query import AllocationQuery
        from ffcv.pipeline.compiler import Compiler
    except ImportError as error:
        raise ValueError(
            f"loader ffcv needs the ffcv library ({error}): `apt-get install libopencv-dev "
            "libturbojpeg0-dev pkg-config`, then `pip install 'coke[ffcv]'`"
        ) from error

    sides = np.array([recipe.size for recipe in recipes])
    starts = np.concatenate([[0], np.cumsum(3 * sides**2)])
    grey = np.arange(256, dtype=np.float64)[:, None] / 255
    normalised = np.stack([(grey - r.mean) / r.std for r in recipes]).astype(np.float32)

    class Views(Operation):  # type: ignore[misc]
        """Decodes an image once and writes all its views, normalised, one after the other.

        The last number of a row is the decoder's status, 0 where all went well.
        """

        def declare_state_and_memory(self, previous_state: Any) -> Any:
            shape, dtype = (int(starts[-1]) + 1,), np.dtype("<f4")
            return (
                replace(previous_state, jit_mode=True, shape=shape, dtype=dtype),
                (
                    AllocationQuery(shape, dtype),
                    AllocationQuery((3 * int(sides.max()) ** 2,), np.dtype("u1")),
                ),
            )

        def generate_code(self) -> Any:
            memory_read, iterate = self.memory_read, Compiler.get_iterator()
            decode_jpeg, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)
            write_view = Compiler.compile(_write_view)

            # Compiled by numba: arrays from outside are constants, so what changes from epoch to
            # epoch (the boxes) must come in as an argument.
            def views(batch: Any, memory: Any, table: Any, storage: Any) -> Any:
                out, scratch = memory
                for i in iterate(len(batch)):
                    record = table[batch[i]]
                    data = memory_read(record["ptr"], storage)
                    height, width = np.uint32(record["height"]), np.uint32(record["width"])
                    status = 0
                    if record["mode"] == 0:
                        pixels = np.empty(3 * np.int64(height) * np.int64(width), np.uint8)
                        status = decode_jpeg(
                            data, pixels, height, width, height, width, 0, 0, 1, 1, False, False
                        )
                        image = pixels.reshape(height, width, 3)
                    else:
                        image = data.reshape(height, width, 3)
                    for v in range(len(sides)):
                        side, box = sides[v], record["boxes"][v]
                        crop = scratch[i][: 3 * side * side].reshape(side, side, 3)
                        resize(image, box[0], box[0] + box[2], box[1], box[1] + box[3], crop)
                        write_view(crop, box[4], normalised[v], out[i][starts[v] : starts[v + 1]])
                    out[i, out.shape[1] - 1] = status
                return out[: len(batch)]

            views.is_parallel = True  # type: ignore[attr-defined]
            return views

    pipelines: dict[str, Any] = {field.name: None for field in beton.fields}
    pipelines[image_field] = PipelineSpec(image_field, decoder=Views())
    return ffcv.loader.Loader(
        str(beton.path),
        batch_size=batch_size,
        num_workers=threads or len(os.sched_getaffinity(0)),
        os_cache=True,
        order=ffcv.loader.OrderOption.SEQUENTIAL,  # of the indices that each epoch gives it
        drop_last=False,
        pipelines=pipelines,
    )
