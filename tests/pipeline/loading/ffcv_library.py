"""Runs FFCV itself, as its users do: reads one beton with its Loader, and writes three.

    python -m tests.pipeline.loading.ffcv_library BETON OUT

A process of its own, because FFCV hangs where its workers fail: whoever starts it sets a limit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read(beton: Path, out: Path) -> None:
    """Every image, id and label as FFCV's Loader yields them, in a random order of its own."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    loader = Loader(
        str(beton),
        batch_size=8,
        num_workers=1,
        os_cache=False,  # reads page by page, so it also minds where pages begin
        order=OrderOption.RANDOM,
        seed=0,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder()],
            "id": [IntDecoder()],
            "label": [IntDecoder()],
        },
    )
    columns: list[list[NDArray[Any]]] = [[], [], []]
    for batch in loader:
        for column, values in zip(columns, batch, strict=True):
            column.append(values.copy())  # FFCV writes the next batches into the same memory
    image, ids, labels = (np.concatenate(column) for column in columns)
    np.savez(out / "read.npz", image=image, id=ids[:, 0], label=labels[:, 0])


class Samples:
    """24 smooth images of two classes and two sizes, as FFCV's writer asks for them."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> tuple[NDArray[np.uint8], int]:
        side = 16 if i % 3 else 24
        ramp = np.linspace(i, 180 + i, side)[:, None, None] + np.array([0, 20, 40])
        plane = np.broadcast_to(ramp, (side, side, 3))
        return np.ascontiguousarray(plane.swapaxes(0, 1) if i % 2 else plane, dtype=np.uint8), i % 2


def write(out: Path) -> None:
    """One beton in each mode of FFCV's writer; ``smart`` stores the larger images as JPEGs."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    for mode in ("jpg", "raw", "smart"):
        fields = {
            "picture": RGBImageField(write_mode=mode, smart_threshold=1000, jpeg_quality=95),
            "target": IntField(),
        }
        writer = DatasetWriter(str(out / f"{mode}.beton"), fields, page_size=1 << 21, num_workers=2)
        writer.from_indexed_dataset(Samples(), chunksize=5)


if __name__ == "__main__":
    write(Path(sys.argv[2]))
    read(Path(sys.argv[1]), Path(sys.argv[2]))
    # On a machine with one core FFCV's threads do not let the process end.
    os._exit(0)
