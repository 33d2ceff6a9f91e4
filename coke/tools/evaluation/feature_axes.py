"""Standardised features in coordinates along their principal axes.

A rotation loses nothing: distances, and norms of weights, stay what they are. In these coordinates
features are uncorrelated, which a solver can use, and fewer images than features need no more
coordinates than images.

Shapes: N images, D features, R = min(N, D) axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-6  # features with a smaller standard deviation, relative to the largest, are constant


@dataclass(frozen=True, kw_only=True)
class FeatureAxes:
    """Features of some images, standardised and rotated.

    Attributes:
        mean, scale: (D,) what standardises a feature: (x - mean) * scale. Constant features have
            scale 0.
        axes: (D, R) orthonormal columns, which span all standardised features.
        variances: (R,) of the coordinates.
        points: (N, R) coordinates of the images.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor
    variances: Tensor
    points: Tensor

    @classmethod
    def of(cls, features_ND: Tensor) -> FeatureAxes:
        """Costs N D min(N, D) multiplications, and the eigenvectors of a matrix of side R."""
        mean_D = features_ND.mean(dim=0)
        std_D = features_ND.std(dim=0, correction=0)
        constant_D = std_D <= _TINY * std_D.max()
        scale_D = torch.where(constant_D, 0.0, 1 / torch.where(constant_D, 1.0, std_D))
        points_NR = (features_ND - mean_D) * scale_D
        span_DR = None
        if len(points_NR) < points_NR.shape[1]:
            span_DR, triangle_RN = torch.linalg.qr(points_NR.T)
            points_NR = triangle_RN.T
        covariance_RR = points_NR.T @ points_NR / len(points_NR)
        variances_R, rotation_RR = torch.linalg.eigh(covariance_RR)
        return cls(
            mean=mean_D,
            scale=scale_D,
            axes=rotation_RR if span_DR is None else span_DR @ rotation_RR,
            variances=variances_R.clamp_min(0.0),
            points=points_NR @ rotation_RR,
        )
