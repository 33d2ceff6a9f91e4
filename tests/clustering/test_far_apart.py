"""Points whose differences are small against their extent: far outliers, placeholders, offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from tests.clustering.exact import exact_optimum

K = 6


def costs(x: NDArray[Any], centers: NDArray[Any]) -> NDArray[np.float64]:
    """Squared distances (N, K), from differences."""
    squares = np.square(x[:, None].astype(np.float64) - centers[None]).sum(axis=2)
    return np.asarray(squares, dtype=np.float64)


def fitted(x: NDArray[Any], **settings: Any) -> OnlineConstrainedKMeans:
    return OnlineConstrainedKMeans(K, metric="euclidean", random_state=0, **settings).fit(x)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12, 1e18, 1e150])
def test_points_beside_a_far_one_go_to_the_nearest_center(far: float) -> None:
    x = np.concatenate([np.random.default_rng(0).normal(size=(239, 2)), [[far, -far]]])
    km = fitted(x, min_ratio=0)
    expected = costs(x, km.cluster_centers_)
    assert km.labels_.tolist() == expected.argmin(axis=1).tolist()
    assert km.predict(x).tolist() == km.labels_.tolist()
    assert km.counts_[km.labels_[-1]] == 1  # the far one is alone
    assert km.inertia_ == pytest.approx(expected.min(axis=1).sum(), rel=1e-9)
    assert -km.score(x) == pytest.approx(km.inertia_, rel=1e-9)
    assert km.optimality_gap_ == 0


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12])
def test_sizes_beside_a_far_point_are_met_at_the_least_cost(far: float) -> None:
    x = np.concatenate([np.random.default_rng(0).normal(size=(239, 2)), [[far, -far]]])
    km = fitted(x, min_size=1, max_size=50)
    near = np.arange(K) != km.labels_[-1]
    cost = costs(x[:-1], km.cluster_centers_[near])
    assert km.inertia_ == pytest.approx(-exact_optimum(-cost, 1, 50), rel=1e-6)
    assert km.optimality_gap_ < 1e-6


def test_the_inertia_of_many_points_counts_a_far_one_that_no_sample_holds() -> None:
    x = np.random.default_rng(1).normal(size=(30_000, 2))
    x[7] = 1e12
    km = OnlineConstrainedKMeans(8, metric="euclidean", min_ratio=0.9, random_state=1).fit(x)
    expected = float(((x - km.cluster_centers_[km.labels_]) ** 2).sum())
    assert km.inertia_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("settings", [{"min_ratio": 1.0}, {"min_ratio": 0.9}, {"max_size": 45}])
@pytest.mark.parametrize("placeholder", [1e6, -1e9])
def test_placeholders_hide_no_clusters(placeholder: float, settings: dict[str, Any]) -> None:
    """A column of a table says -1e9 where nothing is known, in half of the rows."""
    x = np.random.default_rng(7).normal(size=(240, 2))
    x[:120, 0] += placeholder
    km = fitted(x, **settings)
    lower = int(settings.get("min_ratio", 0.4) * 40)
    best = 0.0
    for half in (slice(0, 120), slice(120, 240)):
        own = np.unique(km.labels_[half])
        assert len(own) == 3
        cost = costs(x[half], km.cluster_centers_[own])
        best -= exact_optimum(-cost, lower, settings.get("max_size", 240))
    assert km.inertia_ == pytest.approx(best, rel=1e-6)
    assert km.optimality_gap_ < 1e-6


@pytest.mark.parametrize("in_memory", [True, False])
def test_numbers_are_those_of_the_centers_that_are_shown(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metres of a map in float32: rounding of 0.25 m, which centers must not have again."""
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 600)
    rng = np.random.default_rng(0)
    x = (np.array([5e5, 5.4e6]) + 100 * rng.normal(size=(240, 2))).astype(np.float32)
    km = fitted(x)
    cost = costs(x, km.cluster_centers_)
    assert km.cluster_centers_.dtype == np.float64
    assert km.inertia_ == pytest.approx(cost[np.arange(240), km.labels_].sum(), rel=1e-6)
    np.testing.assert_allclose(km.transform(x), np.sqrt(cost), rtol=1e-6)
    assert -km.score(x) == pytest.approx(cost[np.arange(240), km.predict(x)].sum(), rel=1e-6)


def test_points_out_of_the_range_of_squares_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(ValueError, match=r"differ by too little .* scale the points up"):
        fitted(x * 1e-200)
    with pytest.raises(ValueError, match=r"too large for squared distances .* points down"):
        fitted(x * 1e200)
    with pytest.raises(ValueError, match=r"sample_weight times squared distances .* scale it down"):
        OnlineConstrainedKMeans(K, metric="euclidean").fit(x, sample_weight=np.full(50, 3e306))
    assert fitted(np.full((50, 2), 1e-200)).inertia_ == 0  # identical points differ by nothing
