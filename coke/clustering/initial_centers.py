"""Checks of centers that a user gives to start from, as an array or by a function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.point_array import matrix

_MARGIN = 1e4  # factor that is left for sums over features and points


def checked_centers(
    centers: Any, n_clusters: int, width: int, metric: str, name: str = "init"
) -> NDArray[np.float64]:
    """Centers (K, D) to start from; a copy.

    Args:
        centers: an array, tensor, data frame or list of rows.
        n_clusters, width: K and D.
        metric: ``"cosine"`` asks for rows that have a direction.
        name: what the centers are called in messages.

    Raises:
        ValueError: the shape is another one, a value is NaN or infinite, or a row is zero under
            cosine.
        TypeError: an object is no number.
    """
    centers_KD = matrix(centers, name).astype(np.float64)  # always a copy
    expected = (n_clusters, width)
    if centers_KD.shape != expected:
        raise ValueError(
            f"{name} has shape {centers_KD.shape}; n_clusters and the width of the points need "
            f"{expected}"
        )
    finite_K = np.isfinite(centers_KD).all(axis=1)
    if not finite_K.all():
        raise ValueError(
            f"{name} contains NaN or infinity in row {int((~finite_K).argmax())}; give finite "
            "centers"
        )
    directed_K = centers_KD.any(axis=1)
    if metric == "cosine" and not directed_K.all():
        raise ValueError(
            f"{name} has a zero vector in row {int((~directed_K).argmax())}, which has no "
            'direction; give another center, or use metric="euclidean"'
        )
    return centers_KD


def check_near(centers_KD: Tensor, dtype: torch.dtype, name: str) -> None:
    """Checks that squared distances to the centers do not overflow.

    Args:
        centers_KD: (K, D) float64, in units of the points' standard deviation, around their mean.
        dtype: the type in which distances are calculated.
        name: what the centers are called in messages.

    Raises:
        ValueError: a center is too far from the points.
    """
    limit = torch.finfo(dtype).max ** 0.5 / _MARGIN
    far_K = ~(torch.linalg.vector_norm(centers_KD, ord=torch.inf, dim=1) < limit)
    if bool(far_K.any()):
        raise ValueError(
            f"{name} has row {int(far_K.int().argmax())} so far from the points that squared "
            "distances cannot be calculated; give a nearer center"
        )
