"""What each point counts, as given to an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coke.clustering.point_array import numbers

_LEAST = 1e-6  # of the mean weight: a point that weighs nothing still has a nearest cluster


def pull(weights_B: Tensor) -> Tensor:
    """How much the similarities of points count when they are assigned: their weights, but never
    nothing, so that a point of weight 0 goes to a cluster that is near."""
    return weights_B.clamp(min=_LEAST)


def checked_weights(sample_weight: Any, n_points: int) -> Tensor | None:
    """Weights (N,) float64; None where all points count the same.

    Args:
        sample_weight: None, one number, or N of them.

    Raises:
        ValueError: another shape, a weight that is negative or not finite, or all of them 0.
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
    return torch.from_numpy(weights_N)
