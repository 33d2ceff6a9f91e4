"""What the sizes of clusters are steered to while points stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coke.clustering.sizes import SizeBounds

_MARGIN = 0.01  # sizes are steered to a little inside of their bounds, and never settle outside
_SLACK = 0.04  # of equal sizes, which no label could ever leave otherwise
_EQUAL = 1e-6  # a size this close to its bound is at it
CARRY = 0.3  # of its points, that a center weighs as the next pass starts
PUSH = 0.1  # of the bound: distance that a size off its bound counts more than it is


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What the sizes of clusters over ``n_points`` points are steered to.

    Attributes:
        steered: bounds that the duals aim at.
        held: a point never leaves a cluster that would have fewer points without it.
        sweep: points between two moves of the duals.
        first_step: how many times as long is the dual step at the start of the first pass.
    """

    n_points: int
    steered: SizeBounds
    held: float
    sweep: int
    first_step: float = 1.0

    @classmethod
    def of(
        cls, bounds: SizeBounds, n_points: int, n_clusters: int, first_step: float = 1.0
    ) -> Stream:
        """For bounds on the number of points of a cluster."""
        held = float(math.ceil(bounds.lower - _EQUAL))
        if held * n_clusters > (1 - _SLACK) * n_points:  # rounded up, too few points could move
            held = float(math.floor(bounds.lower + _EQUAL))
        steered = bounds
        if bounds.lower == bounds.upper:
            held = min(held - 1, math.floor((1 - _SLACK) * bounds.lower))
        else:
            equal, lower, upper = n_points / n_clusters, bounds.lower, bounds.upper
            if lower > 0:
                lower = min((1 + _MARGIN) * lower + 0.5, equal)
            if not math.isinf(upper):
                upper = max((1 - _MARGIN) * upper - 0.5, equal)
            steered = SizeBounds(lower=lower, upper=upper)
        # Few enough that a cluster's size changes little within a sweep.
        sweep = max(8, min(n_points // (8 * n_clusters), n_points // 512))
        return cls(
            n_points=n_points, steered=steered, held=held, sweep=sweep, first_step=first_step
        )
