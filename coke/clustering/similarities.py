"""Similarities of points to centers, and how precise they must be.

The similarity is minus half the squared distance, but for a term of the point that no assignment
changes. Mostly it is a product of matrices, x c - c c / 2. Where groups of points are much
further apart than the points of a group, rounding of such products hides which center is nearest.
Differences of coordinates then tell; they take several times as long.

Shapes: B points, S of a sample, U distinct rows, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

_AMONG = 256  # points whose distance to the nearest of a sample is looked at
_FINE = 1e-5  # share of the variance; float32 rounds squared distances to about 1e-7 of it
_FINEST = 1e-8  # the same for float64, which rounds products to about 1e-16 of the variance


def fineness(some_SD: Tensor, n_clusters: int) -> float:
    """The squared distance of a typical point to the nearest other one, as a share of the mean
    squared norm; infinite if all are identical.

    Args:
        some_SD: a sample of the points in their coordinates.
    """
    looked_at = max(2 * n_clusters, _AMONG)
    some_SD = some_SD[:: max(len(some_SD) // looked_at, 1)][:looked_at].double()
    if len(some_SD) < 2:
        return float("inf")
    distances_SM = _distances(some_SD[:_AMONG], some_SD)
    distances_SM[distances_SM == 0] = torch.inf  # the point itself, and identical ones
    nearest_S = distances_SM.amin(dim=1).square()
    nearest_S = nearest_S[nearest_S.isfinite()]
    if not len(nearest_S):
        return float("inf")
    return float(nearest_S.median() / some_SD.square().sum(dim=1).mean())


def needs_float64(fineness: float) -> bool:
    """Whether float32 cannot tell points of one cluster from points of the next."""
    return fineness < _FINE


def needs_differences(fineness: float) -> bool:
    """Whether products in float64 cannot tell them apart, either."""
    return fineness < _FINEST


def similarities(points_BD: Tensor, centers_KD: Tensor, *, direct: bool = False) -> Tensor:
    """(B, K): what an assignment maximises.

    Args:
        direct: minus half the squared distance, from differences of coordinates.
    """
    if direct:
        return _distances(points_BD, centers_KD).square_().mul_(-0.5)
    squares_K = centers_KD.square().sum(dim=1)
    return torch.addmm(squares_K, points_BD, centers_KD.T, beta=-0.5)


def narrowed(values_BK: Tensor) -> Tensor:
    """Similarities in float32, which keeps of float64 what tells the best centers apart."""
    if values_BK.dtype == torch.float32:
        return values_BK
    return values_BK.sub_(values_BK.amax(dim=1, keepdim=True)).float()


def similarities_by_cluster(
    points_UD: Tensor, centers_KD: Tensor, *, direct: bool = False
) -> Tensor:
    """(K, U): :func:`similarities`, cluster by cluster, in the precision of the points."""
    if direct:
        return _distances(centers_KD, points_UD).square_().mul_(-0.5)
    products_KU = centers_KD @ points_UD.T
    return products_KU.sub_(0.5 * centers_KD.square().sum(dim=1, keepdim=True))


def squared_distances(points_BD: Tensor, centers_BD: Tensor) -> Tensor:
    """(B,) float64: of each point to the center in its row."""
    return (points_BD - centers_BD).square_().sum(dim=1, dtype=torch.float64)


def _distances(a_BD: Tensor, b_KD: Tensor) -> Tensor:
    # By a matrix product, which is the default, a point would be some way from itself.
    return torch.cdist(a_BD, b_KD, compute_mode="donot_use_mm_for_euclid_dist")
