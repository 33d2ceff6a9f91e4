"""The journal of a long command: results of finished pieces of work, one file each.

A file appears when it is whole. It holds a fingerprint of the piece's inputs, so that a result is
used again for the same inputs only.
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
    """Records the result of a finished piece, whole or not at all.

    Args:
        path: the file, with :data:`SUFFIX`.
        made_from: fingerprint of the piece's inputs.
        about: one half of the result; JSON must be able to hold it.
        table: the other half, a structured array (n,).

    Raises:
        OSError: the disk refuses.
    """
    array = io.BytesIO()
    np.save(array, table, allow_pickle=False)
    result = json.dumps(about).encode() + b"\n" + array.getvalue()
    head = {"made_from": made_from, "crc32": zlib.crc32(result)}
    # A checksum detects the damage of a power cut, so that a sync for every piece is not needed.
    with draft_of(path, shared=True, sync=False) as draft:
        draft.write_bytes(json.dumps(head).encode() + b"\n" + result)


def load(path: Path, made_from: str) -> tuple[dict[str, Any], NDArray[np.void]] | None:
    """The result of a piece; None if it is missing, damaged or made from other inputs."""
    try:
        head, _, result = path.read_bytes().partition(b"\n")
        found = json.loads(head)
        # A power cut may leave a name without its bytes. The piece is then done again.
        if found["made_from"] != made_from or found["crc32"] != zlib.crc32(result):
            return None
        about, _, array = result.partition(b"\n")
        return json.loads(about), np.load(io.BytesIO(array))
    except (OSError, ValueError, KeyError, TypeError):
        return None
