"""The journal of an ingest: results of finished pieces of work, so that none is done twice.

One file per piece. It gets its name when it is whole, and it says what the piece was a function
of: a result for anything else is none.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, Any]  # of numpy arrays, by name


def save(path: Path, made_from: str, results: Arrays) -> None:
    """Records a finished piece under its name, whole or not at all."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            np.savez(file, made_from=packed(made_from), **results)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path, made_from: str) -> Arrays | None:
    """Results of a piece; None when it is not finished, or was made from something else."""
    try:
        with np.load(path) as file:
            results = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # a power cut may leave a name without its bytes: the work is done again
    known = results.pop("made_from", None)
    return results if known is not None and unpacked(known) == made_from else None


def packed(text: str) -> NDArray[np.uint8]:
    """Text as an array."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


def unpacked(array: NDArray[np.generic]) -> str:
    """The text of :func:`packed`."""
    return array.tobytes().decode()


def flush(path: Path) -> None:
    """Makes a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
