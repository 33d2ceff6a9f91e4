"""Weights of points: in centers, inertia and starts, while sizes count points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from coke.clustering.candidates import Candidates
from coke.clustering.sample_weights import checked_weights
from coke.clustering.seeding import kmeans_plus_plus, sampled


def blobs(n: int = 90, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    corners = np.array([[0.0, 1, 0], [1, 0, 0], [1, 1, 1]])
    points: NDArray[np.float64] = corners[np.arange(n) % 3] + 0.1 * rng.normal(size=(n, 3))
    return points


def test_weights_by_hand() -> None:
    """The center of 0 and 4 at weights 3 and 1 is 1: an inertia of 3 * 1 + 1 * 9."""
    x = np.array([[0.0, 0], [4, 0], [10, 0]])
    km = OnlineConstrainedKMeans(
        2, min_ratio=0, metric="euclidean", init=[[0, 0], [10, 0]], max_iter=1
    ).fit(x, sample_weight=[3, 1, 5])
    assert km.labels_.tolist() == [0, 0, 1] and km.counts_.tolist() == [2, 1]
    np.testing.assert_allclose(km.cluster_centers_, [[1, 0], [10, 0]], rtol=1e-12)
    assert km.inertia_ == pytest.approx(12) and km.optimality_gap_ < 1e-12
    # 3 * 0 + 1 * 16 + 5 * 100 squares: similarities sum to half of what exceeds the inertia.
    assert km.objective_ == pytest.approx((516 - 12) / 2)
    cosine = OnlineConstrainedKMeans(1).fit([[1, 0], [0, 1]], sample_weight=[3, 4])
    np.testing.assert_allclose(cosine.cluster_centers_, [[0.6, 0.8]], rtol=1e-6)
    assert cosine.inertia_ == pytest.approx(7 - 3 * 0.6 - 4 * 0.8)


def test_the_point_that_weighs_least_is_moved() -> None:
    """Sizes count points: of three points near the first center, one must go to the second."""
    x = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [10, 0]])
    for lightest in range(3):
        weights = np.array([5.0, 5, 5, 1])
        weights[lightest] = 1
        km = OnlineConstrainedKMeans(
            2, min_ratio=1, metric="euclidean", init=[[0, 0], [10, 0]], max_iter=1
        ).fit(x, sample_weight=weights)
        assert np.flatnonzero(km.labels_).tolist() == [lightest, 3]


@pytest.mark.parametrize("init", ["k-means++", "array"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_weighted_points_are_repeated_points_where_no_size_binds(metric: str, init: str) -> None:
    x = blobs()
    weights = np.random.default_rng(1).integers(0, 4, size=90)
    order = np.random.default_rng(2).permutation(90)
    settings: dict[str, Any] = {"metric": metric, "min_ratio": 0.1, "random_state": 0}
    settings["init"] = x[:3] if init == "array" else init
    weighted = OnlineConstrainedKMeans(3, **settings).fit(x[order], sample_weight=weights[order])
    repeated = OnlineConstrainedKMeans(3, **settings).fit(np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(
        weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-6, atol=1e-9
    )
    assert np.array_equal(weighted.predict(x), repeated.predict(x))
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-6)
    assert weighted.n_iter_ == repeated.n_iter_
    assert weighted.score(x, sample_weight=weights) == pytest.approx(-weighted.inertia_, rel=1e-6)
    assert np.array_equal(weighted.labels_, weighted.predict(x[order])), "weight 0 is no exception"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equal_weights_change_nothing(
    metric: str, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    x = blobs(300)
    km = OnlineConstrainedKMeans(5, metric=metric, random_state=0)
    plain = km.fit_predict(x).tolist()
    inertia, duals = km.inertia_, km.duals_
    for weights in (np.full(300, 7.0), 7, torch.full((300,), 7.0).bfloat16()):
        assert km.fit_predict(x, sample_weight=weights).tolist() == plain
        assert km.inertia_ == pytest.approx(7 * inertia, rel=1e-5)
        np.testing.assert_allclose(km.duals_, duals, rtol=1e-4, atol=1e-6)


def test_many_points_follow_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over a stream: the center is drawn to the heavy half of the points."""
    monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (500, 2)), rng.normal(1, 0.1, (500, 2))])
    weights = np.repeat([9.0, 1], 500)
    km = OnlineConstrainedKMeans(1, metric="euclidean", random_state=0)
    km.fit(x, sample_weight=weights)
    np.testing.assert_allclose(km.cluster_centers_, [[0.1, 0.1]], atol=0.02)
    exact = (weights @ ((x - km.cluster_centers_) ** 2)).sum()
    assert km.inertia_ == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("in_memory", [True, False])
def test_sizes_hold_and_count_points(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    x = blobs(600)
    weights = np.random.default_rng(0).exponential(size=600) ** 3
    weights[::5] = 0
    km = OnlineConstrainedKMeans(7, min_ratio=1, metric="euclidean", random_state=0)
    km.fit(x, sample_weight=weights)
    assert km.counts_.min() == 85 and km.violation_ == 0
    assert np.array_equal(np.bincount(km.labels_, minlength=7), km.counts_)
    losses = ((x - km.cluster_centers_[km.labels_]) ** 2).sum(axis=1)
    assert km.inertia_ == pytest.approx(float(weights @ losses), rel=1e-5)


def test_a_stream_of_weighted_points_is_one_of_repeated_points() -> None:
    """With one cluster, whose center is the mean of all."""
    x = blobs(60)
    weights = np.arange(60) % 4
    weighted = OnlineConstrainedKMeans(1, metric="euclidean", random_state=0)
    repeated = OnlineConstrainedKMeans(1, metric="euclidean", random_state=0)
    for rows in (slice(0, 30), slice(30, 60)):
        weighted.partial_fit(x[rows], sample_weight=weights[rows])
        repeated.partial_fit(np.repeat(x[rows], weights[rows], axis=0))
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-9)
    np.testing.assert_allclose(
        weighted.cluster_centers_[0], np.average(x, axis=0, weights=weights), rtol=1e-9
    )
    assert weighted.counts_.tolist() == [60]
    fitted = OnlineConstrainedKMeans(1, metric="euclidean").fit(x[:30], sample_weight=weights[:30])
    fitted.partial_fit(x[30:], sample_weight=weights[30:])
    np.testing.assert_allclose(fitted.cluster_centers_, repeated.cluster_centers_, rtol=1e-9)


@pytest.mark.parametrize("choose", [kmeans_plus_plus, sampled])
def test_a_point_of_no_weight_is_no_start(choose: Any) -> None:
    among = Candidates(
        points=torch.arange(8.0).reshape(4, 2), weights=torch.tensor([0, 2, 0, 1]).double()
    )
    for seed in range(20):
        found = choose(among, 2, torch.Generator().manual_seed(seed))
        assert sorted(found[:, 0].tolist()) == [2, 6]


def test_starts_are_drawn_in_proportion_to_weights() -> None:
    among = Candidates(
        points=torch.arange(3.0).unsqueeze(1), weights=torch.tensor([1.0, 2, 5]).double()
    )
    for choose in (kmeans_plus_plus, sampled):
        generator = torch.Generator().manual_seed(0)
        drawn = torch.cat([choose(among, 1, generator) for _ in range(4000)]).flatten().long()
        shares = torch.bincount(drawn, minlength=3) / 4000
        torch.testing.assert_close(shares, torch.tensor([1, 2, 5]) / 8, atol=0.02, rtol=0)


def test_fewer_different_points_than_clusters() -> None:
    among = Candidates.all(torch.ones(5, 2), None)
    assert len(among.points) == 1 and among.weights.tolist() == [5]
    for choose in (kmeans_plus_plus, sampled):
        assert choose(among, 3, torch.Generator().manual_seed(0)).tolist() == [[1, 1]] * 3


def test_candidates_depend_on_the_points_alone() -> None:
    """Not on their order, a shift, a turn by 90 degrees, or a scale."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2)))
    expected = Candidates.all(x, None).points
    assert torch.equal(Candidates.all(x.flip(0), None).points, expected)
    torch.testing.assert_close(Candidates.all(x * 1e6 + 1e5, None).points, expected * 1e6 + 1e5)
    turned = torch.stack([-x[:, 1], x[:, 0]], dim=1)
    found = Candidates.all(turned, None).points
    torch.testing.assert_close(found, torch.stack([-expected[:, 1], expected[:, 0]], dim=1))
    grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))  # many at one distance
    twice = torch.cat([grid, grid.flip(0)])
    assert torch.equal(Candidates.all(twice, None).points, Candidates.all(grid, None).points)
    assert Candidates.all(twice, None).weights.tolist() == [2] * 16


def test_weights_of_other_kinds() -> None:
    assert checked_weights(None, 3) is None
    found = checked_weights(torch.tensor([1, 2, 3], dtype=torch.int32), 3)
    assert found is not None and found.tolist() == [1, 2, 3]
    for bad, message in (
        (np.ma.MaskedArray([1.0, 2, 3], [False, True, False]), "sample_weight is a masked array"),
        ([1, np.inf, 1], "sample_weight is inf in row 1; give finite weights, 0 or more"),
        (np.ones((3, 1)), r"sample_weight has shape \(3, 1\); 3 points need \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            checked_weights(bad, 3)
