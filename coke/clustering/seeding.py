"""Where centers start: k-means++ (Arthur and Vassilvitskii, 2007), or a sample of the points.

Shapes: C candidates, T trials, D dimensions, K clusters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coke.clustering.candidates import Candidates
from coke.clustering.similarities import similarities

SEEDINGS = ("k-means++", "sample")


def sampled(among: Candidates, n_clusters: int, generator: torch.Generator) -> Tensor:
    """K different candidates (K, D), drawn one after the other in proportion to their weights.

    If there are fewer than K, some are there more than once.
    """
    uniform_C = torch.rand(len(among.points), generator=generator, dtype=torch.float64)
    # The order in which exponential clocks of these rates ring is that of such draws.
    rings_C = -uniform_C.clamp_(min=torch.finfo(torch.float64).tiny).log_() / among.weights
    order = rings_C.argsort()
    return among.points[order[torch.arange(n_clusters) % len(order)]].clone()


def kmeans_plus_plus(
    among: Candidates, n_clusters: int, generator: torch.Generator, *, direct: bool = False
) -> Tensor:
    """Candidates (K, D) that are far apart.

    The next one is drawn in proportion to its weight times its squared distance from those before.
    Of several draws, the one that lowers the weighted sum of these distances most is taken, as
    scikit-learn does. This costs about K log K passes over the candidates, so give it a sample.

    Args:
        direct: distances from differences of coordinates, as in :func:`similarities`.
    """
    trials = 2 + int(math.log(n_clusters))
    points_CD, weights_C = among.points, among.weights
    squares_C = points_CD.square().sum(dim=1)
    first = int(_drawn(weights_C, 1, generator))
    chosen = [first]
    nearest_C = _squared_distances(points_CD, squares_C, torch.tensor([first]), direct)[0]
    for _ in range(n_clusters - 1):
        drawn_T = _drawn(nearest_C.to(torch.float64) * weights_C, trials, generator)
        left_TC = _squared_distances(points_CD, squares_C, drawn_T, direct).minimum(nearest_C)
        best = int((left_TC.to(torch.float64) @ weights_C).argmin())
        chosen.append(int(drawn_T[best]))
        nearest_C = left_TC[best]
    return points_CD[chosen].clone()


def _drawn(shares_C: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows (T,), drawn in proportion to their shares; evenly if all shares are 0."""
    total_C = shares_C.cumsum(0)
    if total_C[-1] <= 0:  # fewer different points than clusters: any will do
        return torch.randint(len(shares_C), (count,), generator=generator)
    at_T = torch.rand(count, generator=generator, dtype=torch.float64) * total_C[-1]
    return torch.searchsorted(total_C, at_T, right=True).clamp_(max=len(shares_C) - 1)


def _squared_distances(
    points_CD: Tensor, squares_C: Tensor, rows_T: Tensor, direct: bool
) -> Tensor:
    """(T, C) from the candidates in these rows to all candidates."""
    if direct:
        return similarities(points_CD[rows_T], points_CD, direct=True).mul_(-2)
    products_TC = points_CD[rows_T] @ points_CD.T
    return (squares_C[rows_T].unsqueeze(1) + squares_C - 2 * products_TC).clamp_(min=0)
