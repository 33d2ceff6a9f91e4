"""Distances of points to centers, in float64 and without cancellation.

Shapes: B points, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float64).tiny  # keeps a row of zeros zero


def distances(points_BD: Tensor, centers_KD: Tensor, metric: str) -> Tensor:
    """Euclidean distances (B, K) float64; under cosine, 1 minus the cosine."""
    if metric == "cosine":
        return _from_cosine(unit(points_BD) @ unit(centers_KD).T)
    points_BD, centers_KD = points_BD.double(), centers_KD.double()
    return torch.cdist(points_BD, centers_KD, compute_mode="donot_use_mm_for_euclid_dist")


def own_losses(points_BD: Tensor, centers_BD: Tensor, metric: str) -> Tensor:
    """The terms (B,) float64 of the inertia, for the center in each point's row.

    A term is the squared Euclidean distance; under cosine, 1 minus the cosine.
    """
    if metric == "cosine":
        return _from_cosine((unit(points_BD) * unit(centers_BD)).sum(dim=1))
    points_BD, centers_BD = points_BD.double(), centers_BD.double()
    return (points_BD - centers_BD).square().sum(dim=1)


def unit(rows_BD: Tensor) -> Tensor:
    """Rows of unit norm in float64, however small or large; zeros stay zeros.

    Squares of float64 may be too small or too large, so its rows are scaled first. Those of the
    shorter types cannot, and scaling takes half of the time.
    """
    if rows_BD.dtype == torch.float64:
        rows_BD = rows_BD / rows_BD.abs().amax(dim=1, keepdim=True).clamp(min=_TINY)
    rows_BD = rows_BD.double()
    norms_B1: Tensor = torch.linalg.vector_norm(rows_BD, dim=1, keepdim=True)
    return rows_BD / norms_B1.clamp(min=_TINY)


def _from_cosine(cosines: Tensor) -> Tensor:
    return (1 - cosines).clamp_(min=0)
