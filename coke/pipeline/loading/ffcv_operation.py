"""The code that FFCV's threads run: decode an image once, then make each view of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.rgb_image import Operation
from ffcv.libffcv import imdecode, resize_crop
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler

from coke.config.view_recipe import ViewRecipe


def _write_view(crop: Any, flip: int, normalised: Any, out: Any) -> None:
    """Normalises a crop (S, S, 3) into ``out`` (S * S * 3,), mirrored where ``flip``."""
    side = crop.shape[0]
    for y in range(side):
        for x in range(side):
            seen = side - 1 - x if flip else x
            for c in range(3):
                out[(y * side + x) * 3 + c] = normalised[crop[y, seen, c], c]


def views_operation(recipes: tuple[ViewRecipe, ...]) -> Any:
    """FFCV's decoder for views by these recipes.

    It reads a sample's boxes, one (top, left, height, width, flip) per view, from the table of
    samples. It writes one row of float32 per image: all views (S * S * 3 each), one after the
    other, and last the JPEG decoder's status, 0 where all went well.
    """
    sides = np.array([recipe.size for recipe in recipes])
    starts = np.concatenate([[0], np.cumsum(3 * sides**2)])
    grey = np.arange(256, dtype=np.float64)[:, None] / 255
    normalised = np.stack([(grey - r.mean) / r.std for r in recipes]).astype(np.float32)

    class Views(Operation):  # type: ignore[misc]
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

            # Numba compiles this, and takes arrays from outside as constants. So the boxes, which
            # change from epoch to epoch, come in as an argument.
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

    return Views()
