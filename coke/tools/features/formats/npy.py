"""`.npy`: one array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.files.npy_rows import read_header
from coke.tools.features.formats.feature_file import FeatureFile, check_ids, check_matrix


class NpyFile(FeatureFile):
    """A memory-mapped array.

    Args:
        key: must be None, since the file has no parts.

    Raises:
        ValueError: the file holds no numbers (N, D), is cut short, or a key is given.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        super().__init__(path)
        if key is not None:
            raise ValueError(f"--key {key} names a part of a file; {path} holds one array: omit it")
        shape, self.by_columns, dtype = _header_of(path)
        check_matrix(f"{path}", shape, dtype)
        self.rows, self.width = shape
        self.dtype = dtype.name

    @property
    def array(self) -> NDArray[Any]:
        """All rows, as a memory map."""
        mapped: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        array = self.array
        for start in range(0, self.rows, size):
            yield array[start : start + size]


class NpyIds:
    """``ids.npy``: whole numbers or texts (N,), one per row of the features.

    Raises:
        ValueError: the file holds another number of values, or another type.
    """

    def __init__(self, path: Path, rows: int, of: Path) -> None:
        self.path = path
        shape, _, dtype = _header_of(path)
        check_ids(f"{path}", shape, dtype, rows, f"{of}")
        self.is_text = dtype.kind == "U"

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(array), size):
            yield np.asarray(array[start : start + size])


def _header_of(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with path.open("rb") as file:
        shape, by_columns, dtype = read_header(file, f"{path}")
        needed = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    found = path.stat().st_size
    if found < needed:
        raise ValueError(
            f"{path} is cut short: {found:,} bytes of {needed:,}; write or copy it again"
        )
    return shape, by_columns, dtype
