"""Centers that a user gives to start from, as an array or by a function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.clustering.point_array import matrix


def checked_centers(
    centers: Any, n_clusters: int, width: int, metric: str, name: str = "init"
) -> NDArray[np.float64]:
    """Centers (K, D) to start from; a copy.

    Args:
        centers: an array, tensor, data frame or list of rows.
        n_clusters, width: K and D.
        metric: ``"cosine"`` asks for rows that have a direction.
        name: where the centers are from, for messages.

    Raises:
        ValueError: another shape, NaN or infinity, or a row of zeros under cosine.
        TypeError: an object that is not a number.
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
