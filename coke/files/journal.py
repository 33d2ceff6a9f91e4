"""The journal of an ingest: results of finished pieces of work, so that none is done twice.

One file per piece. It gets its name when it is whole, and it says what the piece was a function
of: a result for anything else is none.
"""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.files.durable import draft_of

SUFFIX = ".done"


def save(path: Path, made_from: str, about: dict[str, Any], table: NDArray[np.void]) -> None:
    """Records a finished piece under its name, whole or not at all.

    The result is ``about``, which JSON must be able to hold, and a structured array.
    """
    array = io.BytesIO()
    np.save(array, table, allow_pickle=False)
    head = {"made_from": made_from, "crc32": zlib.crc32(array.getvalue()), "about": about}
    # The checksum tells of a power cut: a sync for every piece would only cost time.
    with draft_of(path, shared=True, sync=False) as draft:
        draft.write_bytes(json.dumps(head).encode() + b"\n" + array.getvalue())


def load(path: Path, made_from: str) -> tuple[dict[str, Any], NDArray[np.void]] | None:
    """Result of a piece; None when it is not finished, or was made from something else."""
    try:
        head, _, array = path.read_bytes().partition(b"\n")
        found = json.loads(head)
        # A power cut may leave a name without its bytes: then the work is done again.
        if found["made_from"] != made_from or found["crc32"] != zlib.crc32(array):
            return None
        return found["about"], np.load(io.BytesIO(array))
    except (OSError, ValueError, KeyError, TypeError):
        return None
