"""The interface of a file of features, and the checks that all formats share."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Name of the member or column that is read if a file holds several and none is chosen.
USUAL = "features"
#: Members or columns that a message lists.
LISTED = 12


class FeatureFile(ABC):
    """Features (N, D) in a file.

    Attributes:
        path: the file.
        state: result of :func:`state_of` when the file was opened.
        rows, width: N and D.
        dtype: name of the numbers' type.
        what: the part of the file that is read; empty if the file has no parts.
        columns: names of the dimensions, in their order; empty if they have no names.
        has_ids: the file holds an id, a whole number, for each row.
        has_keys: the file holds a key, a text, for each row.
    """

    rows: int
    width: int
    dtype: str
    what: str = ""
    columns: tuple[str, ...] = ()
    has_ids: bool = False
    has_keys: bool = False

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, state_of(path)

    @abstractmethod
    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        """Rows (B, D), B <= size, in order.

        Raises:
            ValueError: rows are missing or have another width.
        """

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        """Ids (B,) of the rows, in order; needs ``has_ids``."""
        raise NotImplementedError

    def keys(self, size: int) -> Iterator[list[str]]:
        """Keys of the rows, in order; needs ``has_keys``."""
        raise NotImplementedError


def state_of(path: Path) -> tuple[int, ...]:
    """Inode, size in bytes and time of the last change in nanoseconds; a change alters them.

    Raises:
        ValueError: the file is missing, cannot be read, or is a pipe or a device.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is no regular file; features are read more than once")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_matrix(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises ValueError if the array is not (N, D) of real numbers."""
    if dtype.kind not in "fiub":
        raise ValueError(f"{name} has type {dtype}; give real numbers, such as float32")
    if len(shape) != 2:
        hint = "one row per point: x.reshape(len(x), -1)" if shape else "an array (N, D)"
        if len(shape) == 1:
            hint = "x.reshape(-1, 1) if these are points of one feature"
        raise ValueError(f"{name} has shape {shape}, features are (N, D); save {hint}")
    if not shape[0] or not shape[1]:
        raise ValueError(f"{name} has shape {shape}: there is nothing to cluster; write it again")


def check_ids(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int, of: str) -> None:
    """Raises ValueError if the array does not hold one whole number or text for each row."""
    if dtype.kind not in "iuU":
        raise ValueError(f"{name} has type {dtype}; ids are whole numbers or texts")
    if shape != (rows,):
        raise ValueError(
            f"{name} has shape {shape}, but {of} has {rows:,} rows: give one id per row, or move "
            "it away"
        )


def first_line(error: BaseException) -> str:
    """The first line of a library's error message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
