"""Points assigned to centers that stand still, in sizes that hold.

Shapes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coke.clustering.fitting import fit_once
from coke.clustering.point_array import point_array
from coke.clustering.points import Points
from coke.clustering.similarities import fineness, needs_differences, needs_float64
from coke.clustering.sizes import SizeBounds

_SETTLE = 3  # passes in which the prices of a stream settle: as many reads of the points


@dataclass(frozen=True, kw_only=True)
class FixedAssignment:
    """An assignment that keeps the sizes.

    Attributes:
        labels: (N,) int64.
        sizes: (K,) int64.
        inertia: sum of squared distances (euclidean), or of 1 - cosine, to the own center.
        optimality_gap: how far the assignment may be from the best one that keeps the sizes, as
            ``optimality_gap_`` of :class:`coke.OnlineConstrainedKMeans`.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    inertia: float
    optimality_gap: float


def assigned_in_sizes(
    x: Any,
    centers: NDArray[np.floating],
    bounds: SizeBounds,
    *,
    metric: str,
    batch_size: int,
    seed: int,
) -> FixedAssignment:
    """The end of a fit, at centers that do not move: prices settle, then moves make sizes hold.

    Args:
        x: (N, D), in all forms that :func:`point_array` takes.
        centers: (K, D), in the coordinates of the points.
        metric: ``"cosine"`` or ``"euclidean"``.
        batch_size: points that are compared with the centers at a time.
        seed: of the sample that tells prices.

    Raises:
        ValueError: points that cannot be used; the message names the row.
    """
    points = Points(point_array(x).array, metric)
    centers_KD = torch.from_numpy(points.coordinates.into(centers))
    fine = fineness(centers_KD, len(centers_KD))
    points.dtype = torch.float64 if needs_float64(fine) else torch.float32
    points.direct = needs_differences(fine)
    fit = fit_once(
        points,
        centers_KD.to(points.dtype),
        bounds,
        max_iter=0,
        tol=0.0,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        advance=lambda: None,
        settle=_SETTLE,
    )
    unit = points.coordinates.scale**2
    inertia = fit.squared_distances * unit
    if metric == "cosine":
        inertia /= 2
        scale = max(abs(points.n - inertia), inertia)
    else:
        scale = inertia / 2
    return FixedAssignment(
        labels=fit.labels.numpy(),
        sizes=fit.sizes.numpy().astype(np.int64),
        inertia=inertia,
        optimality_gap=fit.shortfall * unit / scale if scale > 0 else 0.0,
    )
