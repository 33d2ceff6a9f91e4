"""The stand-alone estimator: sizes guaranteed, near the exact optimum, scikit-learn's ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from coke.clustering.sizes import SizeBounds, size_bounds
from tests.clustering.exact import exact_optimum


def blobs(n: int, k: int, d: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Clusters of very different sizes."""
    rng = np.random.default_rng(seed)
    shares = rng.random(k) ** 3 + 0.02
    which = rng.choice(k, n, p=shares / shares.sum())
    points = rng.normal(size=(k, d))[which] + 0.3 * rng.normal(size=(n, d))
    return points.astype(np.float32)


def similarities_of(km: OnlineConstrainedKMeans, x: NDArray[np.float32]) -> NDArray[np.float64]:
    points: NDArray[np.float64] = x.astype(np.float64)
    centers: NDArray[np.float64] = km.cluster_centers_.astype(np.float64)
    if km.metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(points @ centers.T)
    return np.asarray(points @ centers.T - 0.5 * (centers**2).sum(axis=1))


SIZES: list[dict[str, Any]] = [
    {"min_ratio": 0.0},
    {"min_ratio": 0.4},
    {"min_ratio": 1.0},
    {"min_size": 20, "max_size": 60},
    {"min_ratio": 0.0, "max_size": 45},
    {"min_ratio": 0.5, "max_ratio": 1.3},
]


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_hold_and_the_assignment_is_near_the_exact_optimum(
    sizes: dict[str, Any], metric: str, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    n = 400 if in_memory else 2000
    scale_up = n // 400
    sizes = {name: v * scale_up if isinstance(v, int) else v for name, v in sizes.items()}
    x = blobs(n, 10)
    km = OnlineConstrainedKMeans(10, metric=metric, random_state=0, batch_size=64, **sizes).fit(x)
    bounds = size_bounds(
        n,
        10,
        min_ratio=sizes.get("min_ratio"),
        max_ratio=sizes.get("max_ratio"),
        min_size=sizes.get("min_size"),
        max_size=sizes.get("max_size"),
    )
    counts = np.bincount(km.labels_, minlength=10)
    assert counts.tolist() == km.counts_.tolist() and counts.sum() == n
    assert counts.min() >= bounds.lower and counts.max() <= bounds.upper
    assert km.violation_ == 0
    values = similarities_of(km, x)
    objective = values[np.arange(n), km.labels_].sum()
    optimum = exact_optimum(values, bounds.lower, bounds.upper)
    assert km.objective_ == pytest.approx(objective, rel=1e-4)
    # The bound is above the exact optimum, and the exact optimum above our assignment.
    assert objective <= optimum + 1e-3 <= km.bound_ + 2e-3
    scale = abs(km.bound_) if metric == "cosine" else km.inertia_ / 2
    assert km.optimality_gap_ == pytest.approx(max(km.bound_ - objective, 0) / scale, abs=1e-4)
    # Of inertia, which is smaller than the similarities are, it is a larger share.
    assert km.optimality_gap_ < (0.02 if in_memory else 0.02 if metric == "cosine" else 0.1)


def test_two_pairs_by_hand() -> None:
    """Three points near (0, 0), one at (10, 0): of equal sizes, the point at (2, 0) must move."""
    x = np.array([[0, 0], [0, 1], [2, 0], [10, 0]], dtype=np.float32)
    km = OnlineConstrainedKMeans(
        2, min_ratio=1, metric="euclidean", init=np.array([[0.0, 0], [10, 0]]), max_iter=1
    ).fit(x)
    assert km.labels_.tolist() == [0, 0, 1, 1]
    assert km.cluster_centers_.tolist() == [[0, 0.5], [6, 0]]
    # 0.25 + 0.25 + 16 + 16
    assert km.inertia_ == pytest.approx(32.5)
    free = OnlineConstrainedKMeans(
        2, min_ratio=0, metric="euclidean", init=np.array([[0.0, 0], [10, 0]])
    ).fit(x)
    assert free.labels_.tolist() == [0, 0, 0, 1]
    assert free.duals_.tolist() == [0, 0] and free.optimality_gap_ < 1e-6


def test_without_bounds_it_is_lloyd(monkeypatch: pytest.MonkeyPatch) -> None:
    sklearn = pytest.importorskip("sklearn.cluster", reason="scikit-learn is the reference")
    x = blobs(300, 6)
    start = x[:6].copy()
    theirs = sklearn.KMeans(6, init=start, n_init=1, max_iter=7, tol=0, algorithm="lloyd").fit(x)
    ours = OnlineConstrainedKMeans(
        6, min_ratio=0, metric="euclidean", init=start, max_iter=7, tol=0
    ).fit(x)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-4)


def test_arrays_files_tensors_and_batches_give_the_same(tmp_path: Path) -> None:
    x = blobs(300, 5)
    np.save(tmp_path / "x.npy", x)

    def clustered(points: Any) -> list[int]:
        return list(OnlineConstrainedKMeans(5, random_state=1).fit(points).labels_)

    expected = clustered(x)
    assert clustered(np.load(tmp_path / "x.npy", mmap_mode="r")) == expected
    assert clustered(torch.from_numpy(x)) == expected
    assert clustered(x[i : i + 77] for i in range(0, 300, 77)) == expected
    assert clustered([x[:100], torch.from_numpy(x[100:])]) == expected


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_same_seed_gives_the_same(in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    x = blobs(500, 7)
    a, b = (OnlineConstrainedKMeans(7, random_state=3, n_init=2).fit(x) for _ in range(2))
    assert a.labels_.tolist() == b.labels_.tolist()
    assert a.cluster_centers_.tolist() == b.cluster_centers_.tolist()


def test_a_fit_without_a_seed_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    OnlineConstrainedKMeans(5).fit(blobs(100, 5))
    assert torch.rand(3).tolist() == expected


def test_more_starts_are_no_worse() -> None:
    x = blobs(300, 12)
    one, many = (
        OnlineConstrainedKMeans(12, random_state=0, init="sample", n_init=n).fit(x) for n in (1, 8)
    )
    assert many.inertia_ <= one.inertia_


def test_a_stream_keeps_its_shares() -> None:
    x = blobs(4000, 10)
    x = x[np.random.default_rng(0).permutation(len(x))]
    km = OnlineConstrainedKMeans(10, min_ratio=0.4, random_state=0)
    for _epoch in range(3):
        for start in range(0, 4000, 200):
            km.partial_fit(x[start : start + 200], ids=np.arange(start, start + 200))
    assert km.counts_.sum() == 12000 and km.n_iter_ == 60
    # Ten seeds gave 0.92 to 1.12 of the share that is asked for.
    assert km.counts_.min() >= 0.4 * 1200 * 0.9
    assert len(km.labels_) == 200
    free = OnlineConstrainedKMeans(10, min_ratio=0.0, random_state=0)
    for start in range(0, 4000, 200):
        free.partial_fit(x[start : start + 200])
    assert free.counts_.min() < 0.4 * 400 * 0.9  # the data do not keep such shares by themselves


def test_predict_is_at_the_learned_prices() -> None:
    x = blobs(400, 6)
    km = OnlineConstrainedKMeans(6, min_ratio=0.8, random_state=0).fit(x)
    values = similarities_of(km, x) + km.duals_
    assert (km.predict(x) == values.argmax(axis=1)).mean() > 0.999
    assert (km.predict(x) == km.labels_).mean() > 0.9


def test_scikit_learn_checks_pass() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="needs scikit-learn")
    checks.check_estimator(OnlineConstrainedKMeans(n_clusters=3, metric="euclidean"))


X = np.ones((10, 3), dtype=np.float32) * np.arange(1, 11, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("settings", "points", "message"),
    [
        ({}, np.where(X == 3, np.nan, X), "NaN, infinity .* in row 2; remove"),
        ({}, np.where(X == 3, 0, X), "row 2 is a zero vector.*euclidean"),
        ({"n_clusters": 11}, X, "n_samples=10 should be >= n_clusters=11"),
        ({"min_size": 4}, X, "min_size is 4: 3 clusters .* need 12 points, there are 10; .* 3"),
        ({"max_size": 3}, X, "max_size is 3: 3 clusters .* hold 9 points, there are 10; .* 4"),
        ({"min_size": 3, "max_size": 2}, X[:3], "min_size is 3"),
        ({"min_ratio": 1.5}, X, "min_ratio is 1.5; .*in \\[0, 1\\]"),
        ({"max_ratio": 0.9}, X, "max_ratio is 0.9; .*1 or more"),
        ({"max_ratio": np.nan}, X, "max_ratio is nan; .*1 or more"),
        ({"metric": "l1"}, X, "metric is 'l1'; choose one of cosine, euclidean"),
        ({"dual_rule": "paper"}, X, "dual_rule is 'paper'"),
        ({"init": "best"}, X, "init is 'best'; choose one of k-means\\+\\+, sample"),
        ({"init": np.ones((2, 3))}, X, "init has shape \\(2, 3\\).*\\(3, 3\\)"),
        ({"n_clusters": 0}, X, "n_clusters is 0; give a whole number"),
        ({"batch_size": 2.5}, X, "batch_size is 2.5; give a whole number"),
        ({}, [X, X[:, :2]], "batch 1 has 2 features, those before have 3"),
        ({}, X[0], "Expected 2D array, got 1D array"),
        ({}, iter(()), "the iterator gave no batch"),
    ],
)
def test_bad_input_is_named(settings: dict[str, Any], points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineConstrainedKMeans(**{"n_clusters": 3, **settings}).fit(points)


def test_bad_input_of_a_stream_is_named() -> None:
    km = OnlineConstrainedKMeans(3, random_state=0)
    with pytest.raises(ValueError, match="id 7 is there 2 times in one batch"):
        km.partial_fit(X[:3], ids=[7, 1, 7])
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        km.partial_fit(X[:2])
    with pytest.raises(ValueError, match="use min_ratio and max_ratio with partial_fit"):
        OnlineConstrainedKMeans(3, min_size=2).partial_fit(X)
    km.partial_fit(X)
    with pytest.raises(ValueError, match="X has 2 features, but .* is expecting 3"):
        km.predict(X[:, :2])
    with pytest.raises(ValueError, match="n_clusters is 4, but there are 3 clusters so far"):
        km.set_params(n_clusters=4).partial_fit(X)


@pytest.mark.parametrize(
    ("ratios", "lower", "upper"),
    [
        ((0.4, 1.5), 4, 16),  # of 11: 4.4 and 16.5
        ((0.4, 1.0), 4, 11),
        ((1.0, 1.0), 11, 11),
        ((0.0, None), 0, np.inf),
        ((0.4, np.inf), 4, np.inf),
    ],
)
def test_ratios_become_sizes(
    ratios: tuple[float, float | None], lower: float, upper: float
) -> None:
    least, most = ratios
    bounds = size_bounds(33, 3, min_ratio=least, max_ratio=most, min_size=None, max_size=None)
    assert bounds == SizeBounds(lower=lower, upper=upper)


def test_a_largest_size_always_leaves_room_for_all_points() -> None:
    # 10 points, 3 clusters: 1 x N / K is 3.3, but one cluster must have 4.
    bounds = size_bounds(10, 3, min_ratio=0.0, max_ratio=1.0, min_size=None, max_size=None)
    assert bounds == SizeBounds(lower=0, upper=4)


def test_a_stream_keeps_its_largest_share() -> None:
    x = blobs(3000, 10)
    sizes = {}
    for max_ratio in (None, 1.2):
        km = OnlineConstrainedKMeans(10, min_ratio=0.0, max_ratio=max_ratio, random_state=0)
        for batch in np.split(x, 10):
            km.partial_fit(batch)
        sizes[max_ratio] = km.counts_.max() / 300
        broken = 0.0 if max_ratio is None else max(0.0, sizes[max_ratio] / max_ratio - 1)
        assert km.violation_ == pytest.approx(broken, abs=1e-6)
    assert sizes[None] > 1.6 and sizes[1.2] < 1.3


def test_bounds_by_hand() -> None:
    bounds = SizeBounds(lower=2, upper=4)
    duals = torch.tensor([0.0, 0.5, -0.5, 0.05, 0.0])
    moved = bounds.step(duals, torch.tensor([3, 3, 3, 3, 6]), rate=0.1)
    # Inside: 0 stays, positive and negative come closer, one stops at zero; too large: kept out.
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.4, -0.4, 0.0, -0.2]))
    assert bounds.price(duals) == pytest.approx(2 * 0.55 - 4 * 0.5)
    assert bounds.violation(torch.tensor([1, 4])) == pytest.approx(0.5)
    assert bounds.violation(torch.tensor([2, 5])) == pytest.approx(0.25)
