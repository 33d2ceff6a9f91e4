"""Online constrained k-means as an estimator of its own, with scikit-learn's conventions.

Shapes: N points, B of a batch, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.assignment import assign_in_sweeps
from coke.clustering.estimator_base import ClusterBase
from coke.clustering.points import METRICS, Points, means, similarities
from coke.clustering.repair import repair
from coke.clustering.seeding import SEEDINGS, kmeans_plus_plus, sampled
from coke.clustering.sizes import SizeBounds, refine_duals, size_bounds

_IN_MEMORY = 4_000_000  # similarities (16 MB) that are kept, so that steps need no products
_SEEDS_PER_CLUSTER = 20
_REFINING_STEPS = 40  # of each pass
_LAST_REACHES = (1.0, 0.3, 0.1, 0.03)
_CHUNK = 4_000_000  # similarities that are computed at a time in the last passes
_ENOUGH = 200  # points per cluster of a sample that tells good duals
_STEP = 8.0  # of the duals in the first pass: times the spread of similarities, times K / N


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """What one start led to."""

    centers: Tensor
    duals: Tensor
    labels: Tensor
    sizes: Tensor
    objective: float
    bound: float
    passes: int


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
        best: _Fit | None = None
        with Progress(disable=not self.verbose) as progress:
            total = self.n_init * self.max_iter
            task = progress.add_task("clustering", total=total)
            for start in range(self.n_init):
                fit = _fit_once(self, points, bounds, generator, lambda: progress.advance(task))
                progress.update(task, completed=(start + 1) * self.max_iter)
                if best is None or fit.objective > best.objective:
                    best = fit
        assert best is not None
        self._squares = _total_squares(points, self.batch_size)
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
        shares = SizeBounds(lower=self.min_ratio / self.n_clusters)
        rate = _STEP * _spread(values_BK) * self.n_clusters / seen
        labels_B, duals_K = assign_in_sweeps(
            values_BK, torch.from_numpy(self.duals_), shares, rate=rate, sweep=8
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
        self.violation_ = shares.scaled(seen).violation(counts_K + added_K)
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

    def _keep(self, fit: _Fit, width: int, bounds: SizeBounds) -> None:
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
            self.inertia_ = max(self._squares - 2 * fit.objective, 0.0)
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
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = int(seed.randint(2**31))
        return (
            torch.Generator().manual_seed(int(seed))
            if seed is not None
            else torch.Generator().manual_seed(torch.seed() % 2**63)
        )

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


def _fit_once(
    settings: OnlineConstrainedKMeans,
    points: Points,
    bounds: SizeBounds,
    generator: torch.Generator,
    advance: Any,
) -> _Fit:
    """Seeds, streams, and makes the sizes fit."""
    k, metric = settings.n_clusters, settings.metric
    centers_KD = settings._seeded(
        points.sample(_SEEDS_PER_CLUSTER * k + 1000, generator), generator
    )
    duals_K = torch.zeros(k)
    # Small: similarities stay in memory, and every pass can find good duals and repair.
    whole_ND = points.read(slice(0, points.n)) if points.n * k <= _IN_MEMORY else None
    for number in range(settings.max_iter):
        before_KD = centers_KD
        if whole_ND is not None:
            centers_KD, duals_K = _pass_in_memory(whole_ND, centers_KD, duals_K, bounds, metric)
        else:
            centers_KD, duals_K = _pass_online(
                points, centers_KD, duals_K, bounds, settings.batch_size, number, generator
            )
        advance()
        moved = float((centers_KD - before_KD).square().sum() / centers_KD.square().sum())
        if moved < settings.tol**2:
            break
    chunk = min(points.n, max(settings.batch_size, _CHUNK // k))
    sampled_ND = whole_ND
    if sampled_ND is None and _IN_MEMORY // k >= _ENOUGH * k:
        sampled_ND = points.sample(_IN_MEMORY // k, generator)
    if sampled_ND is not None:
        duals_K = refine_duals(
            similarities(sampled_ND, centers_KD, metric),
            duals_K,
            bounds.scaled(len(sampled_ND) / points.n),
            steps=2 * _REFINING_STEPS,
            reaches=_LAST_REACHES,
        )
    labels_N, sizes_K, bound = _assigned(points, centers_KD, duals_K, chunk)
    bound -= bounds.price(duals_K)

    def priced() -> Iterable[tuple[int, Tensor]]:
        for rows, batch_BD in points.batches(chunk):
            yield rows.start, similarities(batch_BD, centers_KD, metric) + duals_K

    repair(labels_N, sizes_K, bounds, priced)
    return _Fit(
        centers=centers_KD,
        duals=duals_K,
        labels=labels_N,
        sizes=sizes_K,
        objective=_objective(points, centers_KD, labels_N, chunk),
        bound=bound,
        passes=number + 1,
    )


def _pass_in_memory(
    points_ND: Tensor, centers_KD: Tensor, duals_K: Tensor, bounds: SizeBounds, metric: str
) -> tuple[Tensor, Tensor]:
    """One step of Lloyd's algorithm under the bounds; new centers and duals."""
    values_NK = similarities(points_ND, centers_KD, metric)
    duals_K = refine_duals(values_NK, duals_K, bounds, steps=_REFINING_STEPS)
    values_NK += duals_K
    labels_N = values_NK.argmax(dim=1)
    sizes_K = torch.bincount(labels_N, minlength=len(centers_KD))
    repair(labels_N, sizes_K, bounds, lambda: [(0, values_NK)])
    sums_KD = torch.zeros_like(centers_KD).index_add_(0, labels_N, points_ND)
    return means(sums_KD, sizes_K, centers_KD, metric), duals_K


def _pass_online(
    points: Points,
    centers_KD: Tensor,
    duals_K: Tensor,
    bounds: SizeBounds,
    batch_size: int,
    number: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One pass over a stream; new centers, and the mean of the duals along the pass."""
    k = len(centers_KD)
    sums_KD, sizes_K = torch.zeros_like(centers_KD), torch.zeros(k, dtype=torch.int64)
    mean_K = torch.zeros(k)
    shares = bounds.scaled(1 / points.n)
    sweep = min(batch_size, max(8, points.n // 4096))
    spread = 0.0
    for _, batch_BD in points.batches(batch_size, generator):
        values_BK = similarities(batch_BD, centers_KD, points.metric)
        spread = spread or _spread(values_BK)
        rate = _STEP / (1 + number) * spread * k / points.n
        labels_B, duals_K = assign_in_sweeps(values_BK, duals_K, shares, rate=rate, sweep=sweep)
        sums_KD.index_add_(0, labels_B, batch_BD)
        sizes_K += torch.bincount(labels_B, minlength=k)
        mean_K += duals_K * (len(batch_BD) / points.n)
    return means(sums_KD, sizes_K, centers_KD, points.metric), mean_K


def _assigned(
    points: Points, centers_KD: Tensor, duals_K: Tensor, chunk: int
) -> tuple[Tensor, Tensor, float]:
    """Labels (N,) at fixed duals, sizes (K,), and the sum of the best priced similarities."""
    labels_N = torch.empty(points.n, dtype=torch.int64)
    total = 0.0
    for rows, batch_BD in points.batches(chunk):
        values_BK = similarities(batch_BD, centers_KD, points.metric).add_(duals_K)
        best_B, labels_N[rows] = values_BK.max(dim=1)
        total += float(best_B.sum(dtype=torch.float64))
    return labels_N, torch.bincount(labels_N, minlength=len(centers_KD)), total


def _objective(points: Points, centers_KD: Tensor, labels_N: Tensor, chunk: int) -> float:
    """Sum of the similarities of all points to their centers."""
    total = 0.0
    for rows, batch_BD in points.batches(chunk):
        own_BD = centers_KD[labels_N[rows]]
        total += float((batch_BD * own_BD).sum(dtype=torch.float64))
        if points.metric == "euclidean":
            total -= 0.5 * float(own_BD.square().sum(dtype=torch.float64))
    return total


def _total_squares(points: Points, chunk: int) -> float:
    """Sum of squared norms, which turns similarities back into distances."""
    if points.metric == "cosine":
        return float(points.n)
    return sum(float(b.square().sum(dtype=torch.float64)) for _, b in points.batches(chunk))


def _spread(values_BK: Tensor) -> float:
    """How far the similarities of a point to the centers are apart, typically."""
    if values_BK.shape[1] < 2:
        return 1.0
    return max(float(values_BK.std(dim=1).mean()), math.ulp(1.0))


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
