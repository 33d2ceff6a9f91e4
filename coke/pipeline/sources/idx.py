"""IDX files, the format of MNIST and its relatives: a header, then raw 8-bit values."""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LABELS_MAGIC = 0x00000801  # 8-bit values, one dimension
_IMAGES_MAGIC = 0x00000803  # 8-bit values, three dimensions


def find(folder: Path, stem: str, kind: str) -> Path | None:
    """The IDX file under any of its usual names; the unpacked one where both are there."""
    for name in (f"{stem}-{kind}", f"{stem}.{kind}", f"{stem}-{kind}.gz", f"{stem}.{kind}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


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
    return tuple(_read(path, _LABELS_MAGIC).tolist())


@lru_cache(maxsize=2)
def _images(path: Path, changed_ns: int) -> NDArray[np.uint8]:
    return _read(path, _IMAGES_MAGIC)


def _read(path: Path, magic: int) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}); download it again") from error
    found = int.from_bytes(data[:4], "big")
    if found != magic:
        raise ValueError(
            f"{path} starts with {found:#010x} where an IDX file of this kind has {magic:#010x}; "
            "download it again"
        )
    dimensions = magic & 0xFF
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1))
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected or expected == start:
        raise ValueError(
            f"{path} has {len(data)} bytes; its header (shape {shape}) asks for {expected} and at "
            "least one value: download it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
