"""Coordinates in which points are clustered: around zero, and of size one.

Similarities are products of coordinates. Far from zero they are large and nearly equal, so that
rounding hides which center is near; huge or tiny points leave the range of float32. Neither matters
to k-means, which only knows differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-140  # difference of coordinates below which squared ones underflow in float64


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Points minus ``origin``, in units of ``scale``.

    Attributes:
        origin: (D,) float64, near most of the points.
        scale: a power of two, so that the division is exact.
    """

    origin: NDArray[np.float64]
    scale: float

    @classmethod
    def plain(cls, d: int) -> Coordinates:
        """Those of the user."""
        return cls(origin=np.zeros(d), scale=1.0)

    @classmethod
    def around(cls, centers_KD: NDArray[np.floating]) -> Coordinates:
        """For points that are compared with these centers."""
        centers = centers_KD.astype(np.float64)
        # The median: a few far centers do not take it away from the others.
        origin = np.partition(centers, len(centers) // 2, axis=0)[len(centers) // 2]
        return cls(origin=origin, scale=power_of_two(float(np.abs(centers - origin).max())))

    @property
    def is_plain(self) -> bool:
        return self.scale == 1 and not self.origin.any()

    def into(self, points_BD: NDArray[np.floating]) -> NDArray[np.float64]:
        """From the user's coordinates."""
        inside: NDArray[np.float64] = (points_BD.astype(np.float64) - self.origin) / self.scale
        return inside

    def back(self, points_BD: NDArray[np.floating]) -> NDArray[np.float64]:
        """To the user's coordinates."""
        outside: NDArray[np.float64] = points_BD.astype(np.float64) * self.scale + self.origin
        return outside


def power_of_two(size: float) -> float:
    """The power of two next to a size; 1 for sizes whose squares leave the range of float64."""
    return float(2.0 ** np.round(np.log2(size))) if size > SMALLEST else 1.0
