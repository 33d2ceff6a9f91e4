"""Safetensors: named tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.tools.features.formats.feature_file import (
    FeatureFile,
    check_ids,
    check_matrix,
    first_line,
)
from coke.tools.features.formats.members import IDS, chosen_member

_BITS = ("8", "16", "32", "64")
_TYPES = {"BF16": "bfloat16", "BOOL": "bool"} | {
    f"{short}{bits}": f"{name}{bits}"
    for short, name in (("F", "float"), ("I", "int"), ("U", "uint"))
    for bits in _BITS
}


class SafetensorsFile(FeatureFile):
    """A tensor of a safetensors file, read by slices.

    Args:
        key: the tensor; if None, ``features`` or the only tensor of shape (N, D).

    Raises:
        ValueError: the file is not of this kind, has no such tensor, several are possible, or
            the package ``safetensors`` is missing.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError as error:
            raise ValueError(
                f"reading {path} needs safetensors: pip install 'coke[safetensors]'"
            ) from error
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                dtypes = {name: part.get_dtype() for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(
                f"{path} is no safetensors file ({first_line(error)}); write it again"
            ) from error
        self._member = chosen_member(path, shapes, key)
        self.what = f"tensor {self._member!r}"
        stored, shape = dtypes[self._member], shapes[self._member]
        if stored.startswith("C"):
            raise ValueError(f"{path}, {self.what}, has type {stored}; give real numbers")
        self.dtype = _TYPES.get(stored, stored)
        check_matrix(f"{path}, {self.what},", shape, np.dtype(np.float32))
        self.rows, self.width = shape
        if IDS in shapes and self._member != IDS:
            whole = np.dtype(np.int64 if dtypes[IDS].startswith(("I", "U")) else np.float32)
            of = f"{path}, tensor {IDS!r},"
            check_ids(of, shapes[IDS], whole, self.rows, self.what)
            self.has_ids = True

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        for part in self._slices(self._member, size):
            # numpy has no bfloat16. Whole numbers and float64 keep their digits.
            narrow = part.is_floating_point() and part.element_size() < 4
            yield (part.float() if narrow else part).numpy()

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        for part in self._slices(IDS, size):
            yield part.numpy()

    def _slices(self, name: str, size: int) -> Iterator[Any]:
        from safetensors import safe_open

        with ExitStack() as stack:
            file = stack.enter_context(safe_open(self.path, framework="pt"))
            part = file.get_slice(name)
            for start in range(0, self.rows, size):
                yield part[start : min(start + size, self.rows)]
