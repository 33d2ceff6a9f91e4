"""Arrays by name in a pickle that every numpy reads.

numpy 2 writes arrays into pickles by a function that older numpy does not have. Here they are
written as calls of ``numpy.ndarray`` alone, which all have.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_PROTOCOL = 4  # Python 3.4 and later


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not np.ndarray:
            return NotImplemented
        whole = np.ascontiguousarray(obj)
        # Of bytes, the array would be one that may not be written to.
        return np.ndarray, (obj.shape, whole.dtype.str, bytearray(whole.tobytes()))


def pickled(value: Any) -> bytes:
    """A pickle of plain objects and of arrays, which are those of numbers."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=_PROTOCOL).dump(value)
    return buffer.getvalue()
