"""Weights of points: what a user may give, and how they count."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coke.clustering.point_array import numbers

_LEAST = 1e-6  # smallest factor of a point's similarities, as a share of the mean weight


def pull(weights_B: Tensor) -> Tensor:
    """Factors (B,) of the points' similarities in an assignment: the weights, but never 0.

    A point of weight 0 thus still goes to a cluster that is near.

    Args:
        weights_B: weights, whose mean over all points is 1.
    """
    return weights_B.clamp(min=_LEAST)


def checked_weights(sample_weight: Any, n_points: int) -> Tensor | None:
    """Weights (N,) float64; None if all points count the same.

    Args:
        sample_weight: None, one number, or N of them.

    Raises:
        ValueError: the shape is another one, a weight is negative or not finite, all weights are
            0, or their sum is not finite.
    """
    if sample_weight is None:
        return None
    weights_N = numbers(sample_weight, "sample_weight").astype(np.float64)
    if weights_N.ndim == 0:
        weights_N = np.full(n_points, float(weights_N))
    if weights_N.shape != (n_points,):
        raise ValueError(
            f"sample_weight has shape {weights_N.shape}; {n_points} points need {(n_points,)}"
        )
    unfit_N = ~(np.isfinite(weights_N) & (weights_N >= 0))
    if unfit_N.any():
        row = int(unfit_N.argmax())
        raise ValueError(
            f"sample_weight is {weights_N[row]} in row {row}; give finite weights, 0 or more"
        )
    if not weights_N.any():
        raise ValueError("sample_weight is zero for all points; give one of them a positive weight")
    with np.errstate(over="ignore"):
        if not np.isfinite(weights_N.sum()):
            raise ValueError("the sum of sample_weight is too large for float64; scale it down")
    return torch.from_numpy(weights_N)
