"""What each point counts, as given to an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coke.clustering.point_array import numbers


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
        raise ValueError("sample_weight is 0 for all points; give at least one a positive weight")
    return torch.from_numpy(weights_N)
