"""Betons as FFCV's own writer lays them out, made without it."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAGE = 1 << 21


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def make_beton(
    path: Path,
    images: Sequence[NDArray[np.uint8] | bytes],
    numbers: Mapping[str, Sequence[int]],
    *,
    image_field: str = "image",
    sides: Sequence[tuple[int, int]] | None = None,
) -> Path:
    """A beton of arrays (stored raw) and JPEGs, all in one page, with int fields behind them.

    ``sides`` (height, width) are what the metadata says; by default the truth.
    """
    fields = [(2, image_field), *((1, name) for name in numbers)]
    rows = b""
    pixels = b""
    table = b""
    for i, image in enumerate(images):
        raw = not isinstance(image, bytes)
        data = image if isinstance(image, bytes) else image.tobytes()
        if sides is not None:
            height, width = sides[i]
        elif isinstance(image, bytes):
            width, height = Image.open(io.BytesIO(image)).size
        else:
            height, width = image.shape[:2]
        pointer = PAGE + len(pixels)
        rows += struct.pack("<BHHQ3x", raw, width, height, pointer)
        rows += struct.pack(f"<{len(numbers)}q", *(column[i] for column in numbers.values()))
        table = struct.pack("<3Q", i, pointer, len(data)) + table  # workers end in any order
        pixels += data
    assert len(pixels) <= PAGE
    head = struct.pack("<HHIQQ", 2, len(fields), PAGE, len(images), 2 * PAGE)
    for kind, name in fields:
        head += struct.pack("<B16s1024x", kind, name.encode())
    path.write_bytes((head + rows).ljust(PAGE, b"\0") + pixels.ljust(PAGE, b"\0") + table)
    return path
