"""Similarities from products and from differences, and the precision that points need."""

from __future__ import annotations

import math

import numpy as np
import torch

from coke.clustering.similarities import (
    fineness,
    narrowed,
    needs_differences,
    needs_float64,
    similarities,
    similarities_by_cluster,
    squared_distances,
)


def test_similarities_order_the_clusters_as_distances_do() -> None:
    rng = np.random.default_rng(0)
    x, centers = (torch.from_numpy(rng.normal(size=(n, 5))) for n in (40, 7))
    values = similarities(x, centers)
    expected = -0.5 * torch.cdist(x, centers) ** 2 + 0.5 * x.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(similarities_by_cluster(x, centers), values.T)
    torch.testing.assert_close(
        squared_distances(x[:7], centers), torch.cdist(x[:7], centers).diag() ** 2
    )
    narrow = narrowed(values.clone())
    assert narrow.dtype == torch.float32 and torch.equal(narrow.argmax(1), values.argmax(1))
    assert narrow.amax(dim=1).tolist() == [0.0] * 40
    direct = similarities(x, centers, direct=True)
    torch.testing.assert_close(direct, -0.5 * torch.cdist(x, centers) ** 2)
    torch.testing.assert_close(similarities_by_cluster(x, centers, direct=True), direct.T)


def test_differences_tell_apart_what_products_cannot() -> None:
    far = torch.tensor([[1e9, 0], [1e9, 1]], dtype=torch.float64)
    assert similarities(far, far, direct=True).tolist() == [[0, -0.5], [-0.5, 0]]


def test_the_precision_that_points_need() -> None:
    rng = np.random.default_rng(0)
    wide = fineness(torch.from_numpy(rng.normal(size=(400, 2))), 10)
    assert not needs_float64(wide)
    halves = rng.integers(0, 2, size=(400, 1))
    tight = fineness(torch.from_numpy(halves + 1e-3 * rng.normal(size=(400, 2))), 10)
    assert needs_float64(tight) and not needs_differences(tight)
    tighter = fineness(torch.from_numpy(halves + 1e-6 * rng.normal(size=(400, 2))), 10)
    assert needs_float64(tighter) and needs_differences(tighter)
    assert fineness(torch.zeros(50, 2), 3) == fineness(torch.ones(1, 2), 1) == math.inf
    # Identical points are no nearest ones; a matrix product would put some way between them.
    repeated = torch.from_numpy(np.repeat(rng.normal(size=(100, 32)), 4, axis=0))
    assert not needs_float64(fineness(repeated, 10))
