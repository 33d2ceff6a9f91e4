"""Rotated features: two points by hand, and that nothing is lost."""

from __future__ import annotations

import pytest
import torch

from coke.tools.evaluation.feature_axes import FeatureAxes


def test_two_points_by_hand() -> None:
    """Standardised, they are (-1, -1) and (1, 1): the second axis is the diagonal, with variance 2,
    and the first has none."""
    axes = FeatureAxes.of(torch.tensor([[0.0, 5.0], [10.0, 6.0]]))
    assert axes.mean.tolist() == [5.0, 5.5] and axes.scale.tolist() == pytest.approx([0.2, 2.0])
    assert axes.variances.tolist() == pytest.approx([0.0, 2.0], abs=1e-6)
    assert axes.points.abs().flatten().tolist() == pytest.approx([0, 2**0.5] * 2, abs=1e-6)


@pytest.mark.parametrize(("images", "dim"), [(40, 7), (7, 40)], ids=["tall", "wide"])
def test_coordinates_lose_nothing(images: int, dim: int) -> None:
    features = torch.randn(images, dim, generator=torch.Generator().manual_seed(0)) * 3 + 1
    features[:, 2] = 4.0  # a constant
    axes = FeatureAxes.of(features)
    standard = (features - axes.mean) * axes.scale
    assert axes.points.shape == (images, min(images, dim))
    assert torch.equal(standard[:, 2], torch.zeros(images))
    assert torch.allclose(axes.points @ axes.axes.T, standard, atol=1e-5)
    assert torch.allclose(axes.axes.T @ axes.axes, torch.eye(min(images, dim)), atol=1e-5)
    covariance = axes.points.T @ axes.points / images
    assert torch.allclose(covariance, axes.variances.diag(), atol=1e-4)
