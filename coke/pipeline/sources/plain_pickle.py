"""Pickles read as data: nothing in them is run, and of numpy only plain arrays are built."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_KINDS = frozenset(("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"))


def load_plain(data: bytes) -> Any:
    """The contents of a pickle: dictionaries, lists, text, bytes, numbers, arrays of numbers.

    Text that Python 2 wrote is bytes.

    Raises:
        ValueError: it is damaged, or asks for anything else.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"it is no whole pickle ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in _NUMPY:
            return _Array
        if name == "_frombuffer" and module in _NUMERIC:
            return _from_buffer
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        if (module, name) == ("numpy", "dtype"):
            return _Kind
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encoded
        raise ValueError(f"it asks for {module}.{name}, which is neither an array nor plain data")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"it holds bytes in the encoding {encoding!r}")
    return text.encode("latin1")


class _Kind:
    """A number type, as numpy pickles it."""

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name
        if self.name not in _KINDS:
            raise ValueError(f"it holds an array of {self.name!r}; known are arrays of numbers")
        self._order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self._order = order.decode() if isinstance(order, bytes) else order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.name).newbyteorder(">" if self._order == ">" else "<")


class _Array:
    """An array, as numpy pickles it: made empty, then given its state."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _Kind) or not isinstance(data, bytes):
            raise ValueError("it holds an array of objects; known are arrays of numbers")
        if len(data) != math.prod(shape) * kind.dtype.itemsize:
            raise ValueError(f"it holds an array of shape {shape} in {len(data)} bytes")
        self.values = np.frombuffer(data, kind.dtype).reshape(
            shape, order="F" if is_fortran else "C"
        )


def _from_buffer(data: bytes, kind: _Kind, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    """An array as pickle's protocol 5 has it."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", bytes(data)))
    return array


def _plain(value: Any) -> Any:
    """The value with arrays in place of what stood for them, in dictionaries and lists."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
