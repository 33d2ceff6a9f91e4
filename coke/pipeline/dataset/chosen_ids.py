"""Ids that someone chose from a data set: read from a ``.npy`` file, and checked."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def read_ids(path: str | Path) -> NDArray[Any]:
    """The array in a ``.npy`` file, as it is; :func:`checked_ids` looks at its values.

    Raises:
        ValueError: the file cannot be read, or is no ``.npy``.
    """
    remedy = "give a .npy file of ids, as numpy.save writes it"
    try:
        with Path(path).open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError(f"--ids {path} is no .npy file; {remedy}")
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"--ids {path} cannot be read ({error.strerror}); {remedy}") from error
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"--ids {path} is damaged ({error}); {remedy}") from error
    except ValueError as error:
        if str(error).startswith("--ids"):
            raise
        raise ValueError(f"--ids {path} cannot be read ({error}); {remedy}") from error
    return found


def checked_ids(given: Any, n: int, dead_ids: Ids, *, name: str, data: str) -> Ids:
    """The ids (M,) int64, ascending.

    Args:
        given: (M,) whole numbers, in any order.
        n: number of ids of the data set.
        dead_ids: its ids that have no image, ascending.
        name, data: what the ids and the data set are called in messages.

    Raises:
        ValueError: the array is empty or no list of whole numbers; or an id is negative, too
            large, given twice, or has no image.
    """
    array = np.asarray(given)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; give a list of ids, of shape (M,)")
    if not len(array):
        raise ValueError(f"{name} is empty; give at least one id")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has values of type {array.dtype}; ids are whole numbers")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n:
        wrong = low if low < 0 else high
        raise ValueError(f"{name} has id {wrong}, but the ids of {data} are 0 to {n - 1}")
    ids = np.sort(array.astype(np.int64))
    if len(twice := np.flatnonzero(ids[1:] == ids[:-1])):
        raise ValueError(f"{name} has id {ids[twice[0]]} more than once; give every id once")
    if len(dead := np.intersect1d(ids, dead_ids, assume_unique=True)):
        raise ValueError(
            f"{name} has id {dead[0]}, which has no image in {data}"
            + (f", as {len(dead) - 1:,} others" if len(dead) > 1 else "")
            + "; leave out ids whose image is gone"
        )
    return ids


def hash_of_ids(ids: Ids) -> str:
    """SHA-256 of ids (M,), ascending, as 64-bit little-endian numbers."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
