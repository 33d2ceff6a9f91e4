"""What a fit does not depend on: where the points are, how large, how turned, in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from tests.clustering.exact import exact_optimum

K = 5


def blobs(n: int = 300, seed: int = 0, d: int = 3) -> tuple[NDArray[np.float64], Any]:
    """Overlapping groups, and starting centers among them."""
    rng = np.random.default_rng(seed)
    x = 3 * rng.normal(size=(K, d))[rng.integers(0, K, n)] + rng.normal(size=(n, d))
    return x, x[:K].copy()


def fitted(x: Any, start: Any, **settings: Any) -> OnlineConstrainedKMeans:
    chosen: dict[str, Any] = {"metric": "euclidean", "min_ratio": 0.8, "random_state": 0}
    return OnlineConstrainedKMeans(len(start), init=start, **chosen | settings).fit(x)


def in_memory_or_not(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 0)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("power", range(9))
def test_a_shift_changes_nothing(
    power: int, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory_or_not(in_memory, monkeypatch)
    x, start = blobs()
    here = fitted(x, start)
    shift = 10.0**power * np.array([1, -1, 0.5])
    there = fitted(x + shift, start + shift)
    assert there.labels_.tolist() == here.labels_.tolist()
    assert there.inertia_ == pytest.approx(here.inertia_, rel=1e-6)
    assert there.optimality_gap_ == pytest.approx(here.optimality_gap_, abs=1e-6)
    assert there.cluster_centers_.dtype == np.float64
    np.testing.assert_allclose(there.cluster_centers_ - shift, here.cluster_centers_, atol=1e-6)
    distances = ((x + shift - there.cluster_centers_[there.labels_]) ** 2).sum()
    assert there.inertia_ == pytest.approx(distances, rel=1e-6)
    assert there.predict(x + shift).tolist() == here.predict(x).tolist()


def test_a_shift_of_what_float32_holds_changes_nothing(tmp_path: Path) -> None:
    """Whole numbers and their shift by 2^20 are exact in float32, so nothing is lost before."""
    x, start = (np.round(16 * part).astype(np.float32) for part in blobs())
    here = fitted(x, start)
    far, far_start = x + np.float32(2**20), start + np.float32(2**20)
    np.save(tmp_path / "far.npy", far)
    mapped = np.load(tmp_path / "far.npy", mmap_mode="r")
    for points in (far, torch.from_numpy(far), mapped, [far[:100], far[100:]]):
        there = fitted(points, far_start)
        assert there.labels_.tolist() == here.labels_.tolist()
        assert there.inertia_ == pytest.approx(here.inertia_, rel=1e-6)
        assert there.cluster_centers_.dtype == np.float64  # means of whole numbers are none


def test_a_stream_far_away_is_clustered_as_one_that_is_near() -> None:
    x, start = blobs()
    near, far = (OnlineConstrainedKMeans(K, metric="euclidean", init=start + s) for s in (0, 1e7))
    for first in range(0, 300, 50):
        near.partial_fit(x[first : first + 50])
        far.partial_fit(x[first : first + 50] + 1e7)
        assert far.labels_.tolist() == near.labels_.tolist()
    np.testing.assert_allclose(far.cluster_centers_ - 1e7, near.cluster_centers_, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("power", [-20, -10, -3, 3, 10, 20])
def test_the_size_of_the_points_changes_nothing(power: int, metric: str) -> None:
    x, start = blobs()
    here = fitted(x, start, metric=metric)
    scale = 10.0**power
    for dtype in (np.float64, np.float32):
        there = fitted((x * scale).astype(dtype), start * scale, metric=metric)
        same = (there.labels_ == here.labels_).mean()
        assert same == 1 if dtype is np.float64 else same > 0.99
        unit = scale**2 if metric == "euclidean" else 1
        assert there.inertia_ / unit == pytest.approx(here.inertia_, rel=1e-3)
        assert there.optimality_gap_ < 1e-9
        assert (
            there.predict((x * scale).astype(dtype)).tolist() == there.predict(x * scale).tolist()
        )


@pytest.mark.parametrize("seed", range(3))
def test_turning_or_reordering_changes_nothing(seed: int) -> None:
    x, start = blobs(seed=seed)
    here = fitted(x, start)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert fitted(x @ turn, start @ turn).labels_.tolist() == here.labels_.tolist()
    order, names = rng.permutation(len(x)), rng.permutation(K)
    there = fitted(x[order], start[names])
    assert names[there.labels_].tolist() == here.labels_[order].tolist()


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_without_bounds_it_reaches_scikit_learns_inertia(offset: float) -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is the reference")
    x, start = blobs(d=2)
    theirs = cluster.KMeans(K, init=start, n_init=1, max_iter=100, tol=1e-4).fit(x)
    ours = fitted(x + offset, start + offset, min_ratio=0.0, max_iter=100)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-3)
    assert ours.n_iter_ == pytest.approx(theirs.n_iter_, abs=2)


def awkward(kind: str, n: int = 240) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    if kind == "whole numbers":
        return rng.integers(0, 4, size=(n, 2)).astype(float)
    if kind == "binary":
        return rng.integers(0, 2, size=(n, 12)).astype(float)
    if kind == "one outlier":
        return np.concatenate([rng.normal(size=(n - 1, 2)), [[1000.0, 1000]]])
    if kind == "heavy tails":
        return rng.standard_t(1.5, size=(n, 4))
    x = rng.normal(size=(n, 6))
    if kind == "60 % identical":
        x[: 6 * n // 10] = x[0]
    elif kind == "90 % in one place":
        x[: 9 * n // 10] *= 1e-3
    elif kind == "all identical":
        x[:] = x[0]
    elif kind == "three different":
        x = x[rng.integers(0, 3, n)]
    return x


KINDS = (
    "whole numbers",
    "binary",
    "one outlier",
    "heavy tails",
    "60 % identical",
    "90 % in one place",
    "all identical",
    "three different",
)
SIZES: list[dict[str, Any]] = [
    {"min_ratio": 1.0},
    {"min_ratio": 0.8},
    {"min_size": 20, "max_size": 40},
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_awkward_points_are_assigned_as_well_as_can_be(kind: str, sizes: dict[str, Any]) -> None:
    x, k = awkward(kind), 8
    km = OnlineConstrainedKMeans(k, metric="euclidean", random_state=0, **sizes).fit(x)
    lower = sizes.get("min_size", int(sizes.get("min_ratio", 0) * 240 / k))
    upper = sizes.get("max_size", float("inf"))
    assert km.counts_.min() >= lower and km.counts_.max() <= upper
    squares = ((x[:, None] - km.cluster_centers_[None]) ** 2).sum(axis=2)
    reached = squares[np.arange(240), km.labels_].sum()
    best = -exact_optimum(-squares, lower, upper)
    assert reached == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert km.inertia_ == pytest.approx(reached, rel=1e-6, abs=1e-9)
    assert km.optimality_gap_ < 1e-6


@pytest.mark.parametrize("kind", ["one outlier", "heavy tails", "60 % identical", "whole numbers"])
def test_a_stream_of_awkward_points_ends_near_the_best(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many for memory: what is said of the distance to the best is true, and small."""
    monkeypatch.setattr(fitting, "_IN_MEMORY", 8 * 600)
    x, k = awkward(kind, 1200), 8
    km = OnlineConstrainedKMeans(k, metric="euclidean", random_state=0, min_ratio=0.8).fit(x)
    squares = ((x[:, None] - km.cluster_centers_[None]) ** 2).sum(axis=2)
    reached = squares[np.arange(1200), km.labels_].sum()
    best = -exact_optimum(-squares, 120, float("inf"))
    assert km.counts_.min() >= 120
    assert km.inertia_ == pytest.approx(reached, rel=1e-4)
    assert reached - best <= km.optimality_gap_ * reached + 1e-4 * reached
    assert km.optimality_gap_ < 0.03


def test_as_many_clusters_as_points_and_more_than_there_are_different_ones() -> None:
    x = np.array([[0.0], [1], [2], [3]])
    km = fitted(x, x[::-1].copy(), min_ratio=1.0)
    assert km.labels_.tolist() == [3, 2, 1, 0] and km.inertia_ == 0
    same = fitted(np.ones((6, 2)), np.ones((3, 2)), min_ratio=1.0)
    assert same.counts_.tolist() == [2, 2, 2] and same.inertia_ == 0
    assert same.optimality_gap_ == 0
