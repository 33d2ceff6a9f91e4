"""Where centers start: k-means++ (Arthur and Vassilvitskii, 2007), or a sample of the points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SEEDINGS = ("k-means++", "sample")


def sampled(points_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """K different rows (K, D) of the points."""
    return points_ND[torch.randperm(len(points_ND), generator=generator)[:n_clusters]].clone()


def kmeans_plus_plus(points_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows (K, D) of the points, far apart.

    Each next one is drawn with a probability proportional to its squared distance from those
    before; of several draws, the one that lowers the sum of these distances most is taken, as
    scikit-learn does. Costs about K log K passes over the points, so give it a sample.
    """
    trials = 2 + int(math.log(n_clusters))
    squares_N = points_ND.square().sum(dim=1)
    first = int(torch.randint(len(points_ND), (1,), generator=generator))
    chosen = [first]
    nearest_N = _squared_distances(points_ND, squares_N, torch.tensor([first]))[0]
    for _ in range(n_clusters - 1):
        weights_N = nearest_N.to(torch.float64)
        total = weights_N.cumsum(0)
        if total[-1] <= 0:  # fewer different points than clusters: any will do
            drawn_T = torch.randint(len(points_ND), (trials,), generator=generator)
        else:
            at_T = torch.rand(trials, generator=generator, dtype=torch.float64) * total[-1]
            drawn_T = torch.searchsorted(total, at_T).clamp_(max=len(points_ND) - 1)
        left_TN = _squared_distances(points_ND, squares_N, drawn_T).minimum(nearest_N)
        best = int(left_TN.sum(dim=1).argmin())
        chosen.append(int(drawn_T[best]))
        nearest_N = left_TN[best]
    return points_ND[chosen].clone()


def _squared_distances(points_ND: Tensor, squares_N: Tensor, rows_T: Tensor) -> Tensor:
    """(T, N) from the points in these rows to all points."""
    products_TN = points_ND[rows_T] @ points_ND.T
    return (squares_N[rows_T].unsqueeze(1) + squares_N - 2 * products_TN).clamp_(min=0)
