"""A better ending for points that do not fit into memory, where the first one may be far from best.

A stream moves prices point by point, which suits points that differ little. For others, prices are
found on as many points as fit into memory. A pass assigns all points at these prices. The points
that hesitate most between two clusters are then assigned again, so that sizes hold.

Shapes: N points, B of a batch, M in memory, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.clustering.distinct_rows import DistinctRows
from coke.clustering.ending import Ending
from coke.clustering.points import Points
from coke.clustering.sample_weights import pull
from coke.clustering.similarities import similarities_by_cluster
from coke.clustering.sizes import SizeBounds
from coke.clustering.transport import Assigned, assigned

#: Rows of points, in order or not.
Rows: TypeAlias = slice | NDArray[np.int64]

GOOD = 0.01  # share of the inertia that a fit may be from the best without being polished
_ROUNDS = 3
_ENOUGH = 50  # points per cluster, from which a sample tells prices
_ROUNDING = 1e-13  # of similarities in float64, relative


@dataclass(frozen=True, kw_only=True)
class _Round:
    """All points at one set of prices.

    Attributes:
        labels: (N,) of the highest similarity plus price.
        squared_distances: sum, to the centers of these labels.
        hesitant: (M,) rows of the points that lose least by going elsewhere.
    """

    labels: Tensor
    squared_distances: float
    hesitant: Tensor


class Polish:
    """Centers that stand still, and points that are assigned to them."""

    def __init__(
        self,
        points: Points,
        centers_KD: Tensor,
        bounds: SizeBounds,
        similarities: Callable[[Tensor, Rows], Tensor],
        squared_distances: Callable[[Tensor, Tensor, Rows], float],
        *,
        batch_size: int,
        in_memory: int,
        generator: torch.Generator,
    ) -> None:
        """
        Args:
            similarities: (B, K) of a batch (B, D) in these rows, as much as its points weigh.
            squared_distances: weighted sum, of a batch to the centers of labels (B,), in these
                rows.
            in_memory: similarities that may be kept.
        """
        self.points, self.centers_KD, self.bounds = points, centers_KD, bounds
        self.similarities, self.squared_distances = similarities, squared_distances
        self.batch_size, self.generator = batch_size, generator
        self.most = max(in_memory // len(centers_KD), 1)

    def better(self, ending: Ending) -> Ending:
        """An ending that is at least as good, and whose shortfall is nearer to the truth."""
        least = ending.squared_distances - 2 * ending.shortfall  # squared distances of any other
        prices_K = self._sampled_prices(ending.duals.double())
        for _ in range(_ROUNDS):
            at = self._assigned_at(prices_K)
            others_K = torch.bincount(at.labels, minlength=len(prices_K))
            others_K -= torch.bincount(at.labels[at.hesitant], minlength=len(prices_K))
            found, labels_M = self._solved(at.hesitant, prices_K, self.bounds, others_K)
            squared, lost = self._after(at, labels_M, prices_K)
            shortfall = lost + self.bounds.slack(prices_K, torch.from_numpy(found.sizes), price=0.0)
            if found.complete:
                least = max(least, squared - 2 * shortfall)
                if squared < ending.squared_distances:
                    at.labels[at.hesitant] = labels_M
                    ending = Ending(
                        duals=torch.from_numpy(found.prices).float(),
                        labels=at.labels,
                        sizes=torch.from_numpy(found.sizes),
                        squared_distances=squared,
                        shortfall=0.0,
                    )
                if ending.squared_distances - least <= GOOD * ending.squared_distances:
                    break
            prices_K = torch.from_numpy(found.prices)
        return replace(ending, shortfall=(ending.squared_distances - least) / 2)

    def _sampled_prices(self, prices_K: Tensor) -> Tensor:
        """Prices of the best assignment of a sample; the same where that would be too small."""
        m, n, k = min(self.most, self.points.n), self.points.n, len(prices_K)
        if m < _ENOUGH * k:
            return prices_K
        rows = torch.randperm(n, generator=self.generator)[:m].sort().values
        upper = self.bounds.upper
        bounds = SizeBounds(
            lower=math.floor(self.bounds.lower * m / n),
            upper=upper if math.isinf(upper) else math.ceil(upper * m / n),
        )
        found, _ = self._solved(rows, prices_K, bounds, None)
        return torch.from_numpy(found.prices)

    def _solved(
        self, rows_M: Tensor, prices_K: Tensor, bounds: SizeBounds, others_K: Tensor | None
    ) -> tuple[Assigned, Tensor]:
        """These points assigned anew, and their labels (M,)."""
        weights_N = self.points.weights
        rows = DistinctRows.of(
            self.points.read(rows_M.numpy()).double(),
            None if weights_N is None else weights_N[rows_M],
        )
        values_KU = similarities_by_cluster(
            rows.points, self.centers_KD.double(), direct=self.points.direct
        )
        if rows.weights is not None:
            values_KU.mul_(pull(rows.weights))
        found = assigned(
            values_KU.numpy(),
            rows.amounts,
            prices_K.numpy(),
            bounds,
            rounding=_ROUNDING,
            others_K=None if others_K is None else others_K.numpy(),
        )
        labels = rows.labels(found.rows, found.labels, found.amounts)
        return found, torch.from_numpy(labels)

    def _assigned_at(self, prices_K: Tensor) -> _Round:
        labels_N = torch.empty(self.points.n, dtype=torch.int64)
        margins_N = torch.empty(self.points.n)
        total = 0.0
        for rows, batch_BD in self.points.batches(self.batch_size):
            values_BK = self.similarities(batch_BD, rows).add_(prices_K.float())
            best = values_BK.topk(min(2, len(prices_K)), dim=1)
            labels_N[rows] = best.indices[:, 0]
            margins_N[rows] = best.values[:, 0] - best.values[:, -1]
            total += self.squared_distances(batch_BD, best.indices[:, 0], rows)
        hesitant = margins_N.argsort()[: self.most].sort().values
        return _Round(labels=labels_N, squared_distances=total, hesitant=hesitant)

    def _after(self, at: _Round, labels_M: Tensor, prices_K: Tensor) -> tuple[float, float]:
        """Squared distances with the new labels of those who hesitated, and what their moves lose
        at these prices."""
        moved = (labels_M != at.labels[at.hesitant]).nonzero().flatten()
        change = lost = 0.0
        for part in moved.split(self.batch_size):
            rows, labels_B = at.hesitant[part], labels_M[part]
            batch_BD, before_B = self.points.read(rows.numpy()), at.labels[rows]
            off = self.squared_distances(batch_BD, labels_B, rows.numpy())
            off -= self.squared_distances(batch_BD, before_B, rows.numpy())
            change += off
            lost += off / 2 + float((prices_K[before_B] - prices_K[labels_B]).sum())
        return at.squared_distances + change, max(lost, 0.0)
