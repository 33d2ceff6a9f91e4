"""Online constrained k-means as an estimator of its own, with scikit-learn's conventions.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.estimator_base import ClusterBase
from coke.clustering.fitting import Fit, fit_once
from coke.clustering.points import METRICS, Points, means, similarities
from coke.clustering.seeding import SEEDINGS, kmeans_plus_plus, sampled
from coke.clustering.sizes import SizeBounds, size_bounds
from coke.clustering.stream import Stream
from coke.clustering.streaming_assignment import assign_stream

_SEEDS_PER_CLUSTER = 20  # points that seeding chooses from; a thousand more in all


class OnlineConstrainedKMeans(ClusterBase):
    """k-means whose clusters keep a minimum (and maximum) size, for any number of points.

    Points are assigned as they stream by (Sec. 3.2 and 4 of the paper): to the cluster of the
    highest similarity plus dual, the duals moving towards the sizes that are asked for. After the
    last pass, points are moved where they cost least until the sizes hold: they are guaranteed.

    Args:
        n_clusters: K.
        min_ratio: smallest size as a share of N / K, in [0, 1]; 1 means equal sizes.
        min_size: smallest size in points, instead of ``min_ratio``.
        max_size: largest size in points.
        metric: ``"cosine"`` or ``"euclidean"``.
        dual_rule: ``"auto"``; there is nothing to tune.
        init: ``"k-means++"``, ``"sample"``, or an array (K, D).
        n_init: starts; the best one is kept.
        max_iter: passes over the points.
        tol: ends when centers move less than this, relative to the spread of the points.
        batch_size: points that are compared with the centers at a time.
        random_state: seed; the same seed gives the same result.
        verbose: show progress.

    Attributes:
        labels_: (N,) int64 cluster of each point of ``fit``.
        cluster_centers_: (K, D) float32; of unit norm for cosine.
        counts_: (K,) int64 sizes.
        duals_: (K,) float32; positive where the minimum size binds, negative where the maximum.
        inertia_: sum of squared distances (euclidean), or of 1 - cosine, to the own center.
        objective_, bound_: sum of similarities, and what no assignment that keeps the sizes can
            exceed at these centers (the Lagrangian dual).
        optimality_gap_: how far the assignment may be from the best one, as a share of it.
        violation_: largest breach of a size, relative; 0 after ``fit``.
        n_iter_, n_features_in_: passes made, and D.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        min_ratio: float = 0.4,
        min_size: int | None = None,
        max_size: int | None = None,
        metric: str = "cosine",
        dual_rule: str = "auto",
        init: Any = "k-means++",
        n_init: int = 1,
        max_iter: int = 10,
        tol: float = 1e-4,
        batch_size: int = 1024,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.min_ratio = min_ratio
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

    cluster_centers_: NDArray[np.float32]

    def fit(self, X: Any, y: Any = None) -> OnlineConstrainedKMeans:
        """Clusters the points.

        Args:
            X: (N, D) array, memmap or tensor; or an iterable of such batches, which is written
                once to a temporary file, since points are read in random order.
            y: ignored.

        Raises:
            ValueError: settings or points that cannot be clustered; the message names them.
        """
        self._check()
        points = Points(X, self.metric)
        bounds = self._bounds(points.n)
        generator = self._generator()
        best: Fit | None = None
        with Progress(disable=not self.verbose) as progress:
            total = self.n_init * self.max_iter
            task = progress.add_task("clustering", total=total)
            for start in range(self.n_init):
                among = points.sample(_SEEDS_PER_CLUSTER * self.n_clusters + 1000, generator)
                fit = fit_once(
                    points,
                    self._seeded(among, generator),
                    bounds,
                    max_iter=self.max_iter,
                    tol=self.tol,
                    batch_size=self.batch_size,
                    generator=generator,
                    advance=lambda: progress.advance(task),
                )
                progress.update(task, completed=(start + 1) * self.max_iter)
                if best is None or fit.objective > best.objective:
                    best = fit
        assert best is not None
        self._keep(best, points.d, bounds)
        return self

    def partial_fit(self, X: Any, y: Any = None, ids: Any = None) -> OnlineConstrainedKMeans:
        """Learns from one batch of a stream: assigns it, then moves duals, counts and centers.

        Sizes are kept as shares of the stream: ``min_ratio`` only. ``labels_`` are those of the
        batch. The first batch seeds the centers, so it needs at least K points.

        Args:
            X: (B, D) array or tensor.
            ids: (B,) of the points; only checked, that none is there twice.

        Raises:
            ValueError: as ``fit``; or ids that repeat; or sizes in points, which need N.
        """
        self._check()
        if self.min_size is not None or self.max_size is not None:
            raise ValueError(
                "min_size and max_size count points of a whole, which a stream is not; use "
                "min_ratio with partial_fit"
            )
        points = Points(X, self.metric)
        _check_ids(ids, points.n)
        batch_BD = points.read(slice(0, points.n))
        if not hasattr(self, "cluster_centers_"):
            if points.n < self.n_clusters:
                raise ValueError(
                    f"n_samples={points.n} should be >= n_clusters={self.n_clusters}: the first "
                    "batch seeds the centers"
                )
            centers_KD = self._seeded(batch_BD, self._generator())
            self.counts_ = np.zeros(self.n_clusters, dtype=np.int64)
            self.duals_ = np.zeros(self.n_clusters, dtype=np.float32)
            self.n_features_in_ = points.d
            self.n_iter_ = 0
        else:
            self._check_width(points.d)
            centers_KD = torch.from_numpy(self.cluster_centers_)
        counts_K = torch.from_numpy(self.counts_).clone()
        values_BK = similarities(batch_BD, centers_KD, self.metric)
        seen = int(counts_K.sum()) + points.n
        bounds = SizeBounds(lower=self.min_ratio * seen / self.n_clusters)
        labels_B, duals_K, _ = assign_stream(
            values_BK,
            torch.full((points.n,), -1),
            torch.from_numpy(self.duals_),
            counts_K.to(torch.float32),
            Stream(n_points=seen, steered=bounds, held=0, sweep=8),
        )
        added_K = torch.bincount(labels_B, minlength=self.n_clusters)
        sums_KD = torch.zeros_like(centers_KD).index_add_(0, labels_B, batch_BD)
        before_K1 = counts_K.to(torch.float32).unsqueeze(1)
        centers_KD = means(
            sums_KD + centers_KD * before_K1, counts_K + added_K, centers_KD, self.metric
        )
        self.counts_ = (counts_K + added_K).numpy()
        self.duals_ = duals_K.numpy()
        self.cluster_centers_ = centers_KD.numpy()
        self.labels_ = labels_B.numpy()
        self.violation_ = bounds.violation(counts_K + added_K)
        self.n_iter_ += 1
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """``fit``, then ``labels_``."""
        return self.fit(X).labels_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Clusters (N,) of new points, at the prices learned (Eqn. 8): highest similarity plus
        dual. Sizes are not enforced on them.

        Raises:
            ValueError: points of another width.
        """
        self._check_fitted()
        points = Points(X, self.metric)
        self._check_width(points.d)
        centers_KD, duals_K = (
            torch.from_numpy(self.cluster_centers_),
            torch.from_numpy(self.duals_),
        )
        labels = [
            (similarities(batch_BD, centers_KD, self.metric) + duals_K).argmax(dim=1)
            for _, batch_BD in points.batches(self.batch_size)
        ]
        return torch.cat(labels).numpy()

    def _keep(self, fit: Fit, width: int, bounds: SizeBounds) -> None:
        self.cluster_centers_ = fit.centers.numpy()
        self.labels_ = fit.labels.numpy()
        self.counts_ = fit.sizes.numpy()
        self.duals_ = fit.duals.numpy()
        self.objective_, self.bound_ = fit.objective, fit.bound
        self.violation_ = bounds.violation(fit.sizes)
        self.n_iter_, self.n_features_in_ = fit.passes, width
        if self.metric == "cosine":
            self.inertia_ = len(self.labels_) - fit.objective
            scale = abs(fit.bound)
        else:
            self.inertia_ = max(fit.squares - 2 * fit.objective, 0.0)
            scale = self.inertia_ / 2
        self.optimality_gap_ = max(fit.bound - fit.objective, 0.0) / scale if scale > 0 else 0.0

    def _check(self) -> None:
        for name in ("n_clusters", "n_init", "max_iter", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number, 1 or more")
        for name in ("min_size", "max_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | np.integer) or value < 0):
                raise ValueError(f"{name} is {value!r}; give a number of points, or None")
        if not 0 <= self.min_ratio <= 1:
            raise ValueError(f"min_ratio is {self.min_ratio}; it is a share of N / K, in [0, 1]")
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}; choose one of {', '.join(METRICS)}")
        if self.dual_rule != "auto":
            raise ValueError(f"dual_rule is {self.dual_rule!r}; the estimator has only 'auto'")
        if isinstance(self.init, str) and self.init not in SEEDINGS:
            raise ValueError(
                f"init is {self.init!r}; choose one of {', '.join(SEEDINGS)}, or give an array"
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
            min_size=self.min_size,
            max_size=self.max_size,
        )

    def _generator(self) -> torch.Generator:
        generator, seed = torch.Generator(), self.random_state
        if seed is None:
            generator.seed()
        elif isinstance(seed, np.random.RandomState):
            generator.manual_seed(int(seed.randint(2**31)))
        else:
            generator.manual_seed(int(seed))
        return generator

    def _seeded(self, points_ND: Tensor, generator: torch.Generator) -> Tensor:
        if not isinstance(self.init, str):
            centers_KD = torch.as_tensor(np.asarray(self.init, dtype=np.float32)).clone()
            expected = (self.n_clusters, points_ND.shape[1])
            if tuple(centers_KD.shape) != expected:
                raise ValueError(
                    f"init has shape {tuple(centers_KD.shape)}; n_clusters and the width of the "
                    f"points need {expected}"
                )
        elif self.init == "sample":
            centers_KD = sampled(points_ND, self.n_clusters, generator)
        else:
            centers_KD = kmeans_plus_plus(points_ND, self.n_clusters, generator)
        return F.normalize(centers_KD, dim=1) if self.metric == "cosine" else centers_KD

    def _check_fitted(self) -> None:
        if not hasattr(self, "cluster_centers_"):
            raise self.not_fitted("OnlineConstrainedKMeans is not fitted yet; call fit first")

    def _check_width(self, width: int) -> None:
        if width != self.n_features_in_:
            raise ValueError(
                f"X has {width} features, but OnlineConstrainedKMeans is expecting "
                f"{self.n_features_in_} features as input"
            )


def _check_ids(ids: Any, count: int) -> None:
    if ids is None:
        return
    ids = np.asarray(ids)
    if ids.shape != (count,):
        raise ValueError(f"ids have shape {ids.shape}; {count} points need {(count,)}")
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != count:
        raise ValueError(
            f"id {values[counts > 1][0]} is there {counts.max()} times in one batch; give each "
            "point once"
        )
