"""IDX files, the format of MNIST and its relatives: a header, then raw integers."""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LABELS = 0x00000801  # magic number: 8-bit values, one dimension
_LABEL_COLUMNS = 0x00000C02  # 32-bit values, two dimensions: QMNIST's, whose first is the class
_IMAGES = 0x00000803  # 8-bit values, three dimensions


def count_images(path: Path) -> int:
    """Number of images in a file.

    Raises:
        ValueError: the file is damaged or empty.
    """
    return len(_images(path, path.stat().st_mtime_ns))


def image_file(path: Path, number: int) -> bytes:
    """One image as a gray PGM file: the smallest wrapping that image readers understand."""
    pixels: NDArray[np.uint8] = _images(path, path.stat().st_mtime_ns)[number]
    height, width = pixels.shape
    return f"P5 {width} {height} 255\n".encode() + pixels.tobytes()


def read_labels(path: Path) -> tuple[int, ...]:
    """All labels in a file.

    Raises:
        ValueError: the file is damaged or empty.
    """
    values = _read(path, _LABELS, _LABEL_COLUMNS)
    labels: list[int] = (values if values.ndim == 1 else values[:, 0]).tolist()
    return tuple(labels)


@lru_cache(maxsize=2)
def _images(path: Path, changed_ns: int) -> NDArray[np.uint8]:
    return _read(path, _IMAGES).astype(np.uint8, copy=False)


def _read(path: Path, *magics: int) -> NDArray[np.integer[Any]]:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}); download it again") from error
    magic = int.from_bytes(data[:4], "big")
    if magic not in magics:
        raise ValueError(
            f"{path} starts with {magic:#010x} where an IDX file of this kind has "
            f"{' or '.join(f'{known:#010x}' for known in magics)}; download it again"
        )
    kind: np.dtype[np.integer[Any]] = np.dtype(np.uint8 if magic >> 8 == 0x08 else ">i4")
    dimensions = magic & 0xFF
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1))
    expected = start + int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(data) != expected or expected == start:
        raise ValueError(
            f"{path} has {len(data)} bytes; its header (shape {shape}) asks for {expected} and at "
            "least one value: download it again"
        )
    return np.frombuffer(data, dtype=kind, offset=start).reshape(shape)
