"""Passes that are steps of Lloyd's algorithm under bounds: the best assignment, then the means.

Shapes: U distinct rows, P pieces of rows, M rows of a chunk, D dimensions, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from coke.clustering.distinct_rows import DistinctRows
from coke.clustering.ending import Ending
from coke.clustering.points import Points, means
from coke.clustering.repair import repair
from coke.clustering.sample_weights import pull
from coke.clustering.similarities import similarities_by_cluster, squared_distances
from coke.clustering.sizes import SizeBounds, refine_duals, typical_difference
from coke.clustering.transport import Assigned, assigned, highest

_STEPS, _SETTLED = 40, 1e-3  # towards the best duals, before an assignment finds them exactly
_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-13}  # of similarities, relative
_FINER = 0.5  # times as fine as the step before is a step, down to _FREE
_FREE = 1e-2  # share of the typical difference of similarities that a move of a step may lose
_SOME = 200  # rows that tell that difference
_CHUNK = 1 << 14  # rows that are looked at together


class Lloyd:
    """Few enough points to keep all their similarities in memory."""

    def __init__(
        self, points: Points, rows: DistinctRows, centers_KD: Tensor, bounds: SizeBounds
    ) -> None:
        self.points, self.rows, self.bounds = points, rows, bounds
        self.centers_KD = centers_KD.to(points.dtype)
        self.distinct = len(rows.points) == points.n
        self.duals_K = torch.zeros(len(centers_KD), dtype=torch.float64)
        self.free = 1.0

    def run(self) -> None:
        """One step."""
        values_KU = self._similarities(self.rows.points)
        if self.distinct and self._refine(values_KU):
            found = self._repaired(values_KU)  # good duals are good enough for a step
        elif self.distinct:
            found = self._best(values_KU, free=_SETTLED)
        else:  # where prices start far away, first steps may be coarse
            self.free = max(_FINER * self.free, _FREE)
            found = self._best(values_KU, free=self.free)
        sums_KD = torch.zeros(self.centers_KD.shape, dtype=torch.float64)
        masses_K = torch.zeros(len(sums_KD), dtype=torch.float64)
        for rows_M, labels_M, amounts_M in _chunks(found):
            points_MD, masses_M = self.rows.points[rows_M], self._masses(rows_M, amounts_M)
            if self.rows.weights is not None or not self.distinct:
                points_MD = points_MD.mul_(masses_M.to(points_MD.dtype).unsqueeze(1))
            part_KD = torch.zeros_like(self.centers_KD).index_add_(0, labels_M, points_MD)
            sums_KD += part_KD  # in float64, so that many chunks do not add up their rounding
            masses_K.index_add_(0, labels_M, masses_M)
        self.centers_KD = means(
            sums_KD,
            masses_K,
            self.centers_KD,
            self.points.metric,
            self.points.coordinates,
        )

    def finished(self) -> Ending:
        """The points assigned to the centers as they are."""
        if self.distinct:
            self._refine(self._similarities(self.rows.points))
        # In float64, so that nothing is left to gain but rounding of that.
        values_KU = self._similarities(self.rows.points.double())
        found = self._best(values_KU)
        sizes_K = torch.from_numpy(found.sizes)
        shortfall, distances = self.bounds.slack(self.duals_K, sizes_K, price=0.0), 0.0
        for rows_M, labels_M, amounts_M in _chunks(found):
            priced_KM = values_KU[:, rows_M].add_(self.duals_K.unsqueeze(1))
            own_M = priced_KM.gather(0, labels_M.unsqueeze(0))[0]
            shortfall += float((priced_KM.amax(dim=0).sub_(own_M) * amounts_M).sum())
            centers_MD = self.centers_KD[labels_M].double()
            distances_M = squared_distances(self.rows.points[rows_M].double(), centers_MD)
            distances += float((distances_M * self._masses(rows_M, amounts_M)).sum())
        return Ending(
            duals=self.duals_K,
            labels=torch.from_numpy(self.rows.labels(found.rows, found.labels, found.amounts)),
            sizes=sizes_K,
            squared_distances=distances,
            shortfall=shortfall,
        )

    def _similarities(self, points_UD: Tensor) -> Tensor:
        """(K, U), of each row as much as its points weigh."""
        values_KU = similarities_by_cluster(
            points_UD, self.centers_KD.to(points_UD.dtype), direct=self.points.direct
        )
        if self.rows.weights is None:
            return values_KU
        return values_KU.mul_(pull(self.rows.weights).to(values_KU.dtype))

    def _masses(self, rows_M: Tensor, amounts_M: Tensor) -> Tensor:
        """Weights (M,) float64 of pieces of rows."""
        weights_U = self.rows.weights
        return amounts_M.double() if weights_U is None else amounts_M * weights_U[rows_M]

    def _refine(self, values_KU: Tensor) -> bool:
        """Brings the duals near the best ones; returns whether they are good."""
        duals_K, settled = refine_duals(
            values_KU,
            self.duals_K.to(values_KU.dtype),
            self.bounds,
            steps=_STEPS,
            settled=_SETTLED,
            amounts_U=torch.from_numpy(self.rows.amounts),
        )
        self.duals_K = duals_K.double()
        return settled

    def _repaired(self, values_KU: Tensor) -> Assigned:
        """A good assignment of rows that are one point each."""
        labels_U = torch.from_numpy(highest(values_KU.numpy(), self.duals_K.numpy()))
        sizes_K = torch.bincount(labels_U, minlength=len(self.duals_K))
        repair(
            labels_U,
            sizes_K,
            self.duals_K.float(),
            self.bounds,
            lambda: [(0, values_KU.T)],
            lambda rows_M: values_KU[:, rows_M].T,
            values_KU.numel(),
        )
        return Assigned(
            rows=np.arange(len(labels_U)),
            labels=labels_U.numpy(),
            amounts=self.rows.amounts,
            prices=self.duals_K.numpy(),
            sizes=sizes_K.numpy(),
            complete=True,
        )

    def _best(self, values_KU: Tensor, *, free: float = 0.0) -> Assigned:
        """The best assignment; sets the duals to its prices.

        Args:
            free: what a move may lose, as a share of the typical difference of similarities.
        """
        some_BK = values_KU[:, :: max(values_KU.shape[1] // _SOME, 1)].T
        found = assigned(
            values_KU.numpy(),
            self.rows.amounts,
            self.duals_K.numpy(),
            self.bounds,
            rounding=_ROUNDING[values_KU.dtype],
            tolerance=free * typical_difference(some_BK),
        )
        assert found.complete, "feasible bounds leave a path to every cluster"
        self.duals_K = torch.from_numpy(found.prices)
        return found


def _chunks(found: Assigned) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, labels and amounts (M,) of some pieces at a time."""
    parts = (torch.from_numpy(t).split(_CHUNK) for t in (found.rows, found.labels, found.amounts))
    return zip(*parts, strict=True)
