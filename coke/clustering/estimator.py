"""Online constrained k-means as an estimator of its own, with scikit-learn's conventions.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from coke.clustering.candidates import Candidates
from coke.clustering.coordinates import Coordinates
from coke.clustering.estimator_base import ClusterBase
from coke.clustering.estimator_settings import check_settings, number_of_starts
from coke.clustering.features_of_fit import check_features, learn_features
from coke.clustering.fitted_centers import FittedCenters
from coke.clustering.fitting import Fit, fit_once
from coke.clustering.point_array import PointArray, point_array
from coke.clustering.points import Points
from coke.clustering.random_state import generator_of
from coke.clustering.sample_weights import checked_weights
from coke.clustering.sizes import SizeBounds, size_bounds
from coke.clustering.starting_centers import candidates_of, starting_centers
from coke.clustering.stream_step import StreamState, check_ids, stream_step


class OnlineConstrainedKMeans(ClusterBase):
    """k-means whose clusters keep a minimum (and maximum) size, for any number of points.

    Points are assigned as they stream by (Sec. 3.2 and 4 of the paper). A point goes to the cluster
    of the highest similarity plus dual, and the duals move towards the sizes asked for. After the
    last pass, the cheapest moves of points make the sizes hold. They are guaranteed.

    Args:
        n_clusters: number of clusters K.
        min_ratio: smallest size as a share of N / K, in [0, 1]; 1 means equal sizes.
        max_ratio: largest size as a share of N / K, 1 or more; None for no limit.
        min_size: smallest size in points, instead of ``min_ratio``.
        max_size: largest size in points, instead of ``max_ratio``.
        metric: ``"cosine"`` or ``"euclidean"``.
        dual_rule: ``"auto"``, which has nothing to tune.
        init: where centers start: ``"k-means++"``; ``"random"`` (or ``"sample"``) for different
            points drawn at random; an array (K, D); or a function that returns such an array and is
            called as ``init(X, n_clusters, random_state=...)`` with a numpy ``RandomState``.
        n_init: number of starts; the best result is kept. ``"auto"`` means 10 for ``"random"`` and
            a function, otherwise 1. An array is always one start.
        max_iter: largest number of passes over the points.
        tol: ends when the centers' squared moves add up to no more than this share of the variance
            of a feature, as scikit-learn's KMeans does.
        batch_size: points that are compared with the centers at a time.
        random_state: seed; the same seed gives the same result. It is a whole number, or a
            generator of numpy or torch from which the seed is drawn. None means a new seed.
        verbose: whether to show progress.

    Attributes:
        labels_: (N,) int64 cluster of each point of ``fit``.
        cluster_centers_: (K, D) float64, in the coordinates of the points; of unit norm for cosine.
        counts_: (K,) int64 sizes.
        duals_: (K,) float64; positive where the minimum size binds, negative where the maximum.
        inertia_: sum of squared distances (euclidean), or of 1 - cosine, to the own center.
        objective_: sum of similarities (euclidean: x c - c c / 2) to the own center.
        bound_: sum of similarities that no assignment of these points to these centers can exceed
            if it keeps the sizes (the Lagrangian dual).
        optimality_gap_: how far the assignment may be from the best one to these centers, as a
            share of ``inertia_`` (euclidean) or of the sum of similarities (cosine). It is not the
            difference of the two sums, which far from the origin would be lost in rounding.
        violation_: largest breach of a size, relative; 0 after ``fit``.
        n_iter_: number of passes that were made.
        n_features_in_: number of features D.
        feature_names_in_: (D,) names of the features, if ``fit`` was given a data frame with texts
            as names.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        min_ratio: float = 0.4,
        max_ratio: float | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        metric: str = "cosine",
        dual_rule: str = "auto",
        init: Any = "k-means++",
        n_init: int | str = 1,
        max_iter: int = 10,
        tol: float = 1e-4,
        batch_size: int = 1024,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.min_ratio = min_ratio
        self.max_ratio = max_ratio
        self.min_size = min_size
        self.max_size = max_size
        self.metric = metric
        self.dual_rule = dual_rule
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    cluster_centers_: NDArray[np.floating]
    n_iter_: int

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> OnlineConstrainedKMeans:
        """Clusters the points.

        Args:
            X: (N, D) array, memmap, tensor or data frame; or an iterable of such batches, which is
                written once to a temporary file, since points are read in random order.
            y: ignored.
            sample_weight: (N,) weight of each point in centers, ``inertia_`` and k-means++; 1 if
                None. Sizes count points, whatever they weigh.

        Raises:
            ValueError: settings, points or weights that cannot be used; the message names them.
        """
        self._fit(X, sample_weight)
        return self

    def _fit(self, X: Any, sample_weight: Any) -> PointArray:
        """Fits, and returns the points as one array: an iterable can be read only once."""
        check_settings(self.get_params(deep=False))
        generator = generator_of(self.random_state)
        given = point_array(X)
        weights_N = checked_weights(sample_weight, given.array.shape[0])
        points = Points(given.array, self.metric, weights=weights_N)
        if not math.isfinite(points.squares * points.mean_weight):
            raise ValueError(
                "sample_weight times squared distances is too large for float64; scale it down"
            )
        bounds = self._bounds(points.n)
        best: Fit | None = None
        starts = number_of_starts(self.n_init, self.init)
        with Progress(disable=not self.verbose) as progress:
            task = progress.add_task("clustering", total=starts * self.max_iter)
            for start in range(starts):
                among = candidates_of(points, self.n_clusters, generator)
                fit = fit_once(
                    points,
                    starting_centers(self.init, self.n_clusters, points, given, among, generator),
                    bounds,
                    max_iter=self.max_iter,
                    tol=self.tol,
                    batch_size=self.batch_size,
                    generator=generator,
                    advance=lambda: progress.advance(task),
                )
                progress.update(task, completed=(start + 1) * self.max_iter)
                if best is None or fit.squared_distances < best.squared_distances:
                    best = fit
        assert best is not None
        self._keep(best, points, bounds)
        learn_features(self, given)
        return given

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, ids: Any = None
    ) -> OnlineConstrainedKMeans:
        """Learns from one batch of a stream: assigns it, then moves duals, counts and centers.

        Sizes are kept as shares of the stream, so ``min_ratio`` and ``max_ratio`` apply, as far as
        one pass can. ``labels_`` are those of the batch. The first batch seeds the centers, so it
        needs at least K points.

        Args:
            X: (B, D) array, tensor or data frame.
            y: ignored.
            sample_weight: (B,) weight of each point in the centers; 1 if None.
            ids: (B,) ids of the points; they are only checked to be different.

        Raises:
            ValueError: as ``fit``; or ids that repeat; or sizes in points, which need N.
        """
        check_settings(self.get_params(deep=False))
        if self.min_size is not None or self.max_size is not None:
            raise ValueError(
                "min_size and max_size count points of a whole, which a stream is not; use "
                "min_ratio and max_ratio with partial_fit"
            )
        given = point_array(X)
        check_ids(ids, given.array.shape[0])
        weights_B = checked_weights(sample_weight, given.array.shape[0])
        first = not hasattr(self, "cluster_centers_")
        if not first:
            check_features(self, given)
            if len(self.cluster_centers_) != self.n_clusters:
                raise ValueError(
                    f"n_clusters is {self.n_clusters}, but there are {len(self.cluster_centers_)} "
                    "clusters so far; give a new estimator, or call fit"
                )
        coordinates = None if first else Coordinates.around(self._centers())
        points = Points(given.array, self.metric, coordinates)
        points.dtype = torch.float64
        state = self._before(points, given, weights_B) if first else self._so_far(points)
        labels_B, state, self.violation_ = stream_step(
            points, weights_B, state, self.min_ratio, self.max_ratio
        )
        if first:
            learn_features(self, given)
        self.n_iter_ = 1 if first else self.n_iter_ + 1
        self.counts_, self._masses = state.counts.numpy(), state.masses.numpy()
        self.duals_ = state.duals.numpy() * points.coordinates.scale**2
        self._keep_centers(state.centers, points)
        self.labels_ = labels_B.numpy()
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Clusters (N,) of new points: those of the highest similarity plus dual (Eqn. 8).

        Sizes are not enforced on new points.

        Args:
            X: (N, D), as in ``fit``.

        Raises:
            ValueError: the points have another width, or their features other names.
        """
        given = self._new(X)
        return self._fitted().labels(given)

    def transform(self, X: Any) -> NDArray[Any]:
        """Distances (N, K) of points to centers: Euclidean; under cosine, 1 minus the cosine.

        Duals play no part here. The result is float32 for points in float32 or float16, otherwise
        float64.

        Args:
            X: (N, D), as in ``fit``.

        Raises:
            ValueError: as ``predict``.
        """
        given = self._new(X)
        return self._fitted().distances(given)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the inertia of points in the clusters that ``predict`` gives them.

        Args:
            X: (N, D), as in ``fit``.
            y: ignored.
            sample_weight: (N,) weight of each point; 1 if None.

        Raises:
            ValueError: as ``predict``; or the weights are not N finite numbers, 0 or more.
        """
        given = self._new(X)
        weights_N = checked_weights(sample_weight, given.array.shape[0])
        return -self._fitted().inertia(given, weights_N)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> NDArray[np.int64]:
        """``fit``, then ``labels_``."""
        self._fit(X, sample_weight)
        return self.labels_

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> NDArray[Any]:
        """``fit``, then ``transform`` of the same points."""
        given = self._fit(X, sample_weight)
        return self._fitted().distances(given)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _new(self, X: Any) -> PointArray:
        """New points, whose features are those of ``fit``."""
        if not hasattr(self, "cluster_centers_"):
            raise self.not_fitted("OnlineConstrainedKMeans is not fitted yet; call fit first")
        given = point_array(X)
        check_features(self, given)
        return given

    def _before(self, points: Points, given: PointArray, weights_B: Tensor | None) -> StreamState:
        """The clusters before the first batch of a stream."""
        if points.n < self.n_clusters:
            raise ValueError(
                f"n_samples={points.n} should be >= n_clusters={self.n_clusters}: the first batch "
                "seeds the centers"
            )
        among = Candidates.all(points.whole(), weights_B)
        generator = generator_of(self.random_state)
        return StreamState.at(
            starting_centers(self.init, self.n_clusters, points, given, among, generator)
        )

    def _so_far(self, points: Points) -> StreamState:
        """The clusters before a further batch."""
        return StreamState(
            centers=torch.from_numpy(points.coordinates.into(self._centers())),
            duals=torch.from_numpy(self.duals_ / points.coordinates.scale**2),
            counts=torch.from_numpy(self.counts_),
            masses=torch.from_numpy(self._masses),
        )

    def _keep(self, fit: Fit, points: Points, bounds: SizeBounds) -> None:
        self._keep_centers(fit.centers, points)
        self.labels_ = fit.labels.numpy()
        self.counts_ = fit.sizes.numpy()
        masses_K = torch.bincount(fit.labels, points.weights, minlength=self.n_clusters)
        self._masses = masses_K.double().numpy() * points.mean_weight
        self.duals_ = fit.duals.double().numpy() * points.coordinates.scale**2
        unit = points.coordinates.scale**2 * points.mean_weight
        self.violation_ = bounds.violation(fit.sizes)
        self.n_iter_ = fit.passes
        if self.metric == "cosine":
            self.inertia_ = fit.squared_distances * unit / 2
            self.objective_ = points.n * points.mean_weight - self.inertia_
            scale = max(abs(self.objective_), self.inertia_)
        else:
            self.inertia_ = fit.squared_distances * unit
            self.objective_ = (points.squares * points.mean_weight - self.inertia_) / 2
            scale = self.inertia_ / 2
        self.bound_ = self.objective_ + fit.shortfall * unit
        self.optimality_gap_ = fit.shortfall * unit / scale if scale > 0 else 0.0

    def _keep_centers(self, centers_KD: Tensor, points: Points) -> None:
        """In float64: far from the origin, float32 rounds more than centers move."""
        self.cluster_centers_ = points.coordinates.back(centers_KD.numpy())

    def _centers(self) -> NDArray[np.float64]:
        """The centers, also where someone has set others."""
        return np.asarray(self.cluster_centers_, dtype=np.float64)

    def _fitted(self) -> FittedCenters:
        return FittedCenters(
            centers=self._centers(),
            duals=self.duals_,
            metric=self.metric,
            batch_size=self.batch_size,
        )

    def _bounds(self, n_points: int) -> SizeBounds:
        if self.n_clusters > n_points:
            raise ValueError(
                f"n_samples={n_points} should be >= n_clusters={self.n_clusters}: use fewer "
                "clusters than points"
            )
        return size_bounds(
            n_points,
            self.n_clusters,
            min_ratio=self.min_ratio,
            max_ratio=self.max_ratio,
            min_size=self.min_size,
            max_size=self.max_size,
        )
