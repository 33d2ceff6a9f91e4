"""The estimator among scikit-learn's: names, distances, score, starts, seeds and pipelines."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke import OnlineConstrainedKMeans

CORNERS = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def around_corners(n: int = 90, seed: int = 0) -> NDArray[np.float64]:
    """Points near the three corners, as many near each."""
    rng = np.random.default_rng(seed)
    points: NDArray[np.float64] = CORNERS[np.arange(n) % 3] + 0.05 * rng.normal(size=(n, 2))
    return points


def fitted(metric: str = "euclidean", **settings: Any) -> OnlineConstrainedKMeans:
    chosen: dict[str, Any] = {"init": CORNERS, "random_state": 0} | settings
    return OnlineConstrainedKMeans(3, metric=metric, **chosen).fit(around_corners())


def test_columns_in_another_order_are_refused() -> None:
    pd = pytest.importorskip("pandas", reason="makes data frames")
    frame = pd.DataFrame(around_corners(), columns=["lat", "lon"])
    km = OnlineConstrainedKMeans(3, metric="euclidean", random_state=0).fit(frame)
    assert km.feature_names_in_.tolist() == ["lat", "lon"] and km.n_features_in_ == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = km.predict(frame)
    for ask in (km.predict, km.transform, km.score):
        with pytest.raises(ValueError, match="(?s)should match.*must be in the same order"):
            ask(frame[["lon", "lat"]])
        with pytest.raises(ValueError, match="(?s)unseen at fit time:\n- x\n.*missing:\n- lat"):
            ask(frame.rename(columns={"lat": "x"}))
        with pytest.raises(ValueError, match="(?s)yet now missing:\n- lon"):
            ask(frame[["lat"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names, but OnlineCon"):
        assert np.array_equal(km.predict(frame.to_numpy()), labels)
    km.fit(frame.to_numpy())
    assert not hasattr(km, "feature_names_in_"), "a new fit forgets the names of the last"
    with pytest.warns(UserWarning, match="X has feature names, but OnlineConstrainedKMeans was"):
        km.predict(frame)


def test_a_stream_keeps_its_columns() -> None:
    pl = pytest.importorskip("polars", reason="makes data frames")
    frame = pl.DataFrame(around_corners(), schema=["lat", "lon"])
    km = OnlineConstrainedKMeans(3, random_state=0).partial_fit(frame[:30])
    km.partial_fit(frame[30:60])
    with pytest.raises(ValueError, match="must be in the same order"):
        km.partial_fit(frame[60:].select("lon", "lat"))
    assert km.counts_.sum() == 60, "a refused batch changes nothing"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transform_is_the_distance_to_each_center(dtype: Any) -> None:
    x = around_corners(12).astype(dtype)
    km = fitted()
    expected = np.sqrt(((x[:, None] - km.cluster_centers_[None]) ** 2).sum(axis=2))
    found = km.transform(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.array_equal(found, km.transform(list(np.array_split(x, 5))))

    km = fitted("cosine", init=np.array([[1.0, 0], [0, 2], [3, 3]]), max_iter=1)
    km.cluster_centers_ = np.array([[1, 0], [0, 1], [np.sqrt(0.5)] * 2], dtype=np.float32)
    found = km.transform(np.array([[2.0, 0], [-1, 0], [3, 4]]))
    expected = [[0, 1, 1 - np.sqrt(0.5)], [2, 1, 1 + np.sqrt(0.5)], [0.4, 0.2, 1 - 7 / 50**0.5]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_score_of_two_points_by_hand() -> None:
    km = fitted(min_ratio=0)
    km.cluster_centers_ = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    x = np.array([[1.0, 2], [10, -3]])  # 5 from the first center, 9 from the second
    assert km.predict(x).tolist() == [0, 1]
    assert km.score(x) == pytest.approx(-14)
    assert km.score(x, sample_weight=[2, 0.5]) == pytest.approx(-14.5)
    assert km.score(x, None, 2) == pytest.approx(-28)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_score_of_the_points_of_fit_is_minus_the_inertia(metric: str) -> None:
    km = fitted(metric)
    assert km.score(around_corners()) == pytest.approx(-km.inertia_, rel=1e-3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1e308] * 90, "the sum of sample_weight is too large for float64; scale it down"),
        ([1, 2], r"sample_weight has shape \(2,\); 90 points need \(90,\)"),
        ([-1] + [1] * 89, r"sample_weight is -1\.0 in row 0; give finite weights, 0 or more"),
        ([1] * 89 + [np.nan], r"sample_weight is nan in row 89"),
        ([0] * 90, "sample_weight is zero for all points"),
        (["a"] * 90, "sample_weight has type <U1; give numbers"),
    ],
)
def test_weights_that_cannot_be_used_are_named(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted().score(around_corners(), sample_weight=weights)


def test_fit_predict_and_fit_transform_are_fit_and_then_the_rest() -> None:
    x = around_corners()
    km = fitted()
    assert np.array_equal(
        OnlineConstrainedKMeans(3, metric="euclidean", init=CORNERS, random_state=0).fit_predict(x),
        km.labels_,
    )
    found = OnlineConstrainedKMeans(3, metric="euclidean", init=CORNERS, random_state=0)
    batches = (x[i : i + 30] for i in range(0, 90, 30))  # these can be read only once
    assert np.array_equal(found.fit_transform(batches), km.transform(x))


def test_starts_are_what_init_says() -> None:
    """No pass moves centers away from where they are best: each start is seen in the result."""
    seen: list[Any] = []

    def corners(points: Any, n_clusters: int, random_state: Any) -> Any:
        seen.append((points.shape, n_clusters, random_state.randint(1000)))
        return torch.from_numpy(CORNERS).bfloat16()

    km = fitted(init=corners, n_init=2)
    assert km.labels_.tolist() == (np.arange(90) % 3).tolist()
    assert [shape for shape, *_ in seen] == [(90, 2), (90, 2)]
    assert seen[0] != seen[1], "each start has random numbers of its own"
    first = list(seen)
    seen.clear()
    fitted(init=corners, n_init="auto")
    assert len(seen) == 10 and seen[:2] == first, "the same seed gives the same"
    for init in (CORNERS.tolist(), CORNERS.astype(np.float32), torch.from_numpy(CORNERS)):
        assert fitted(init=init, n_init=5).labels_.tolist() == km.labels_.tolist()
    random, sample = (fitted(init=init, n_init="auto") for init in ("random", "sample"))
    assert random.labels_.tolist() == sample.labels_.tolist()
    assert random.inertia_ <= fitted(init="random", n_init=1).inertia_ * (1 + 1e-6)
    kept = CORNERS.copy()
    fitted("cosine")
    assert np.array_equal(CORNERS, kept), "what was given is not changed"


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (np.where(CORNERS == 0, np.nan, CORNERS), "init contains NaN or infinity in row 0; give"),
        (np.array([[1, 1], [np.inf, 0], [0, 1]]), "init contains NaN or infinity in row 1"),
        (CORNERS * [[1], [1], [0]], "init has a zero vector in row 2, which has no direction"),
        (CORNERS[0], "Expected 2D array, got 1D array instead: init has shape"),
        (CORNERS[:2], r"init has shape \(2, 2\); .* need \(3, 2\)"),
        (CORNERS[:, :1], r"init has shape \(3, 1\); .* need \(3, 2\)"),
        (CORNERS + 1j, "init has complex numbers"),
        (np.ma.MaskedArray(CORNERS, CORNERS == 0), "init is a masked array, and 2 of its values"),
        ([["a", "b"]] * 3, "init has type <U1; give numbers"),
        (None, "init is None; choose one of k-means"),
        (lambda x, k, random_state: x[:k] * 0, "what init returned has a zero vector in row 0"),
        (lambda x, k, random_state: x[:1], r"what init returned has shape \(1, 2\)"),
    ],
)
def test_centers_that_cannot_start_are_named(init: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted("cosine", init=init)
    x = around_corners()
    with pytest.raises(ValueError, match=message):
        OnlineConstrainedKMeans(3, init=init).partial_fit(x)


def test_centers_at_the_origin_start_under_the_euclidean_metric() -> None:
    assert fitted(init=np.zeros((3, 2))).counts_.sum() == 90


@pytest.mark.parametrize("far", [1e150, 1e300])
def test_centers_that_are_too_far_are_named(far: float) -> None:
    with pytest.raises(ValueError, match="init has row 1 so far from the points that squared"):
        fitted(init=CORNERS * [[1], [far], [1]])
    assert fitted(init=CORNERS * [[1], [1e140], [1]]).counts_.sum() == 90


def test_seeds_of_every_kind() -> None:
    x = around_corners()

    def labels(seed: Any) -> list[int]:
        km = OnlineConstrainedKMeans(5, random_state=seed)
        found: list[int] = km.fit(x).labels_.tolist()
        return found

    for seed in (0, np.int64(7), np.uint8(7), 2**40):
        assert labels(seed) == labels(seed)
    assert labels(7) == labels(np.int64(7)) == labels(np.uint8(7))
    for make in (
        np.random.RandomState,
        np.random.default_rng,
        lambda seed: torch.Generator().manual_seed(seed),
    ):
        assert labels(make(3)) == labels(make(3))
        shared = make(3)
        assert labels(shared) != labels(shared), "a generator moves on"
    np.random.seed(3)
    of_the_module = labels(np.random)
    np.random.seed(3)
    assert labels(np.random) == of_the_module
    labels(None)


@pytest.mark.parametrize("seed", [-1, 0.5, 1.0, "a", 2**64, True, [1]])
def test_other_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="random_state is .*; give"):
        fitted(random_state=seed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_ratio": None}, "min_ratio is None; it is a share of N / K"),
        ({"min_ratio": float("nan")}, "min_ratio is nan"),
        ({"min_ratio": "0.4"}, "min_ratio is '0.4'"),
        ({"min_size": np.ceil(10.0)}, r"min_size is .*10\.0.*; give a number of points as a whole"),
        ({"max_size": -1}, "max_size is -1"),
        ({"tol": None}, "tol is None; give a number, 0 or more"),
        ({"tol": -1}, "tol is -1"),
        ({"tol": float("nan")}, "tol is nan"),
        ({"n_init": "best"}, "n_init is 'best'; give a whole number, 1 or more"),
        ({"n_clusters": True}, "n_clusters is True"),
        ({"metric": None}, "metric is None; choose one of"),
        ({"metric": ["cosine"]}, "metric is .'cosine'."),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineConstrainedKMeans(**settings).fit(around_corners())


def test_one_point_and_as_many_clusters_as_points() -> None:
    one = OnlineConstrainedKMeans(1, metric="euclidean").fit([[3.0, 4.0]])
    assert one.labels_.tolist() == [0] and one.cluster_centers_.tolist() == [[3, 4]]
    assert one.inertia_ == 0 and one.predict([[5, 5]]).tolist() == [0]
    all_apart = OnlineConstrainedKMeans(3, metric="euclidean", random_state=0).fit(CORNERS)
    assert sorted(all_apart.labels_.tolist()) == [0, 1, 2] and all_apart.inertia_ < 1e-6


def test_it_is_pickled_and_cloned() -> None:
    base = pytest.importorskip("sklearn.base", reason="clone is scikit-learn's")
    x = around_corners()
    km = fitted()
    again = pickle.loads(pickle.dumps(km))
    assert np.array_equal(again.predict(x), km.predict(x))
    fresh = base.clone(km)
    assert not hasattr(fresh, "cluster_centers_") and np.array_equal(fresh.init, CORNERS)
    assert np.array_equal(fresh.fit(x).labels_, km.labels_)


def test_it_is_searched_by_its_own_score() -> None:
    model_selection = pytest.importorskip("sklearn.model_selection", reason="searches settings")
    search = model_selection.GridSearchCV(
        OnlineConstrainedKMeans(metric="euclidean", min_ratio=0.2, random_state=0),
        {"n_clusters": [1, 3]},
        cv=3,
    ).fit(around_corners())
    assert search.best_params_ == {"n_clusters": 3} and search.best_score_ < 0


def test_it_is_a_step_of_a_pipeline_and_names_its_output() -> None:
    pipeline = pytest.importorskip("sklearn.pipeline", reason="pipelines are scikit-learn's")
    pd = pytest.importorskip("pandas", reason="makes data frames")
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    frame = pd.DataFrame(around_corners(), columns=["lat", "lon"], index=np.arange(90) + 500)
    km = fitted()
    steps = pipeline.make_pipeline(StandardScaler(), km)
    assert steps.fit_predict(frame).shape == (90,)
    assert steps.get_feature_names_out().tolist() == [
        f"onlineconstrainedkmeans{i}" for i in range(3)
    ]
    classes = np.arange(90) % 3
    assert pipeline.make_pipeline(km, LogisticRegression()).fit(frame, classes).score(
        frame, classes
    ) == pytest.approx(1)
    km.set_output(transform="pandas")
    frames: list[Any] = [km.fit_transform(frame), km.transform(frame)]
    for named in frames:
        assert named.columns.tolist() == steps.get_feature_names_out().tolist()
        assert named.index.tolist() == frame.index.tolist()


def test_names_of_features_are_checked_as_scikit_learn_does() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks", reason="needs scikit-learn")
    pytest.importorskip("pandas", reason="makes data frames")
    km = OnlineConstrainedKMeans(3, metric="euclidean")
    for check in (
        checks.check_dataframe_column_names_consistency,
        checks.check_transformer_get_feature_names_out,
        checks.check_transformer_get_feature_names_out_pandas,
        checks.check_set_output_transform_pandas,
    ):
        check("OnlineConstrainedKMeans", km)


WITHOUT = """
import sys
sys.modules["sklearn"] = sys.modules["sklearn.base"] = sys.modules["pandas"] = None
import numpy as np
from coke import OnlineConstrainedKMeans
x = np.random.default_rng(0).normal(size=(60, 3))
km = OnlineConstrainedKMeans(3, random_state=0)
try:
    km.predict(x)
except ValueError as error:
    assert "not fitted yet" in str(error)
assert km.fit_transform(x).shape == (60, 3) and km.score(x) < 0
assert km.get_feature_names_out().tolist()[2] == "onlineconstrainedkmeans2"
assert km.fit_predict(x).shape == (60,) and km.set_params(n_clusters=4).fit(x).counts_.min() > 5
print(km)
"""


@pytest.mark.slow
def test_it_works_without_scikit_learn_and_pandas() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OnlineConstrainedKMeans(n_clusters=4, min_ratio=0.4")
