"""The assignment that a fit ends with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Points assigned to the centers as they are, in sizes that hold.

    Attributes:
        duals (K,), labels (N,), sizes (K,).
        squared_distances: sum over the points, to the own center.
        shortfall: how far the sum of similarities may be from the best, at most.
    """

    duals: Tensor
    labels: Tensor
    sizes: Tensor
    squared_distances: float
    shortfall: float
