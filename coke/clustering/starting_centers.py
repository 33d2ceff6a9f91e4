"""Where centers start: at points that the estimator chooses, or at centers that a user gives.

Shapes: K clusters, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.candidates import Candidates
from coke.clustering.estimator_settings import is_sampled
from coke.clustering.point_array import PointArray, matrix
from coke.clustering.points import Points, on_sphere, unit_rows
from coke.clustering.seeding import kmeans_plus_plus, sampled
from coke.clustering.similarities import fineness, needs_differences, needs_float64

_SEEDS_PER_CLUSTER = 20  # points that seeding chooses from; a thousand more in all
_SMALL = 200_000  # similarities up to which float64 costs next to nothing
_MARGIN = 1e4  # factor that is left for sums over features and points


def candidates_of(points: Points, n_clusters: int, generator: torch.Generator) -> Candidates:
    """Points that seeding chooses from: all of them if there are few, otherwise a sample.

    It also sets how all further similarities are calculated. ``points.dtype`` is float64 for few
    points, and for clusters that float32 could not tell apart; otherwise float32.
    ``points.direct`` is True for clusters that products in float64 could not tell apart.
    """
    points.dtype = torch.float64
    count = _SEEDS_PER_CLUSTER * n_clusters + 1000
    if points.n <= count:
        some_SD = points.whole()
        found = Candidates.all(some_SD, points.weights)
    else:
        rows, some_SD = points.sample(count, generator)
        found = Candidates.sample(some_SD, None if points.weights is None else points.weights[rows])
    fine = fineness(some_SD, n_clusters)
    # A far point that is not in the sample shows in the variance of all points.
    extent = points.variance * points.d / float(some_SD.square().sum(dim=1).mean() or 1)
    if points.n * n_clusters > _SMALL and not needs_float64(fine / max(extent, 1)):
        points.dtype = torch.float32
    points.direct = needs_differences(fine)
    return found.to(points.dtype)


def starting_centers(
    init: Any,
    n_clusters: int,
    points: Points,
    given: PointArray,
    among: Candidates,
    generator: torch.Generator,
) -> Tensor:
    """Centers (K, D) to start from, in the coordinates of the points.

    Args:
        init: the setting of the estimator.
        points: all points.
        given: the same points as the user gave them, for a function that makes the centers.
        among: points that the estimator itself chooses from.
        generator: the source of random numbers.

    Raises:
        ValueError, TypeError: as :func:`checked_centers`.
    """
    metric, coordinates = points.metric, points.coordinates
    if isinstance(init, str):
        if is_sampled(init):
            centers_KD = sampled(among, n_clusters, generator)
        else:
            centers_KD = kmeans_plus_plus(among, n_clusters, generator, direct=points.direct)
    else:
        name = "init"
        if callable(init):
            seed = int(torch.randint(2**31, (1,), generator=generator))
            init = init(given.array, n_clusters, random_state=np.random.RandomState(seed))
            name = "what init returned"
        checked_KD = checked_centers(init, n_clusters, among.points.shape[1], metric, name)
        if metric == "cosine":
            checked_KD = unit_rows(checked_KD)
        inside_KD, dtype = torch.from_numpy(coordinates.into(checked_KD)), among.points.dtype
        _check_near(inside_KD, dtype, name)
        centers_KD = inside_KD.to(dtype)
    return on_sphere(centers_KD, coordinates) if metric == "cosine" else centers_KD


def checked_centers(
    centers: Any, n_clusters: int, width: int, metric: str, name: str = "init"
) -> NDArray[np.float64]:
    """Centers (K, D) to start from; a copy.

    Args:
        centers: an array, tensor, data frame or list of rows.
        n_clusters, width: K and D.
        metric: ``"cosine"`` asks for rows that have a direction.
        name: what the centers are called in messages.

    Raises:
        ValueError: the shape is another one, a value is NaN or infinite, or a row is zero under
            cosine.
        TypeError: an object is no number.
    """
    centers_KD = matrix(centers, name).astype(np.float64)  # always a copy
    expected = (n_clusters, width)
    if centers_KD.shape != expected:
        raise ValueError(
            f"{name} has shape {centers_KD.shape}; n_clusters and the width of the points need "
            f"{expected}"
        )
    finite_K = np.isfinite(centers_KD).all(axis=1)
    if not finite_K.all():
        raise ValueError(
            f"{name} contains NaN or infinity in row {int((~finite_K).argmax())}; give finite "
            "centers"
        )
    directed_K = centers_KD.any(axis=1)
    if metric == "cosine" and not directed_K.all():
        raise ValueError(
            f"{name} has a zero vector in row {int((~directed_K).argmax())}, which has no "
            'direction; give another center, or use metric="euclidean"'
        )
    return centers_KD


def _check_near(centers_KD: Tensor, dtype: torch.dtype, name: str) -> None:
    """Checks that squared distances to the centers do not overflow.

    Args:
        centers_KD: (K, D) float64, in units of the points' standard deviation, around their mean.
        dtype: the type in which distances are calculated.
        name: what the centers are called in messages.

    Raises:
        ValueError: a center is too far from the points.
    """
    limit = torch.finfo(dtype).max ** 0.5 / _MARGIN
    far_K = ~(torch.linalg.vector_norm(centers_KD, ord=torch.inf, dim=1) < limit)
    if bool(far_K.any()):
        raise ValueError(
            f"{name} has row {int(far_K.int().argmax())} so far from the points that squared "
            "distances cannot be calculated; give a nearer center"
        )
