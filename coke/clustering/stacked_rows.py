"""Arrays that lie one below the other, read as one: a folder of files without a copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StackedRows:
    """Arrays (n, D) of one width and type, as one array (N, D) that is read, never held.

    Args:
        parts: memory maps, or arrays; at least one, none empty.

    Attributes:
        shape: (N, D).

    Raises:
        ValueError: widths or types differ.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = tuple(parts)
        self.dtype, width = parts[0].dtype, parts[0].shape[1]
        for number, part in enumerate(parts):
            if part.shape[1] != width or part.dtype != self.dtype:
                raise ValueError(
                    f"part {number} is {part.dtype} of width {part.shape[1]}, part 0 {self.dtype} "
                    f"of width {width}: all parts must be alike"
                )
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Copies of rows (B, D): a slice of step 1, or row numbers >= 0 in any order."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            assert step == 1
            rows = np.arange(start, stop)
        found = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        part_of = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(part_of).tolist():
            chosen = part_of == number
            part = self._parts[number]
            found[chosen] = part[rows[chosen] - (self._ends[number] - len(part))]
        return found
