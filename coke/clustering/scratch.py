"""Memory that is written anew in every step."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """Tensors for results that nobody needs after the next request.

    On a CPU, fresh memory for the similarities of a batch costs a page fault per 4 KB: as much
    time as the matrix product that fills it. A GPU's allocator keeps its memory by itself.
    """

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    def matrix(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """An uninitialised (rows, columns) tensor, of the dtype and on the device of ``like``.

        The next request may overwrite it.
        """
        if like.device.type != "cpu":
            return like.new_empty(rows, columns)
        size = rows * columns
        if self._kept.numel() < size or self._kept.dtype != like.dtype:
            self._kept = like.new_empty(size)
        return self._kept[:size].view(rows, columns)
