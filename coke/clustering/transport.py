"""The best assignment of weighted rows to clusters of bounded size, and the prices that prove it.

It is a minimum-cost flow, solved by successive shortest paths (Ahuja, Magnanti and Orlin, 1993,
"Network Flows", 9.7). Each row goes to the cluster of the highest value plus price. Sizes that this
gives are off at some clusters. A cluster with too many points sheds one along the cheapest path: a
point moves to a second cluster, a point of the second to a third, and so on to a cluster that
lacks one. Paths live in a graph of K clusters, whose arc from a to b costs what the cheapest move
of a point from a to b loses. A last node, the *slack*, takes what a cluster holds between its
bounds. The lengths of the shortest paths change the prices, which stay the duals of the assignment.

Shapes: U rows, P pieces of rows, K clusters, S = K + 1 nodes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coke.clustering.shortest_paths import shortest_paths
from coke.clustering.sizes import SizeBounds

_CHUNK = 1 << 12  # rows whose values fit into a cache
_FINER = 8.0  # times as fine as before are prices mended in each turn

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """Rows assigned to clusters; a row of several points may be split into pieces.

    Attributes:
        rows, labels, amounts: (P,) each piece's row, cluster and number of points.
        prices, sizes: (K,).
        complete: whether the sizes keep their bounds.
    """

    rows: Ints
    labels: Ints
    amounts: Ints
    prices: Floats
    sizes: Ints
    complete: bool


def assigned(
    values_KU: NDArray[Any],
    amounts_U: Ints,
    prices_K: NDArray[Any],
    bounds: SizeBounds,
    *,
    rounding: float,
    tolerance: float = 0.0,
    others_K: Ints | None = None,
) -> Assigned:
    """The assignment with the highest sum of values whose sizes keep their bounds.

    Args:
        values_KU: (K, U) what a point of a row is worth in a cluster.
        amounts_U: (U,) points in each row.
        prices_K: (K,) where prices start; good ones save time.
        rounding: of values and prices, relative: moves that lose no more count as free.
        tolerance: moves that lose no more than this count as free, too. The sum of values is below
            the best by at most this for each point that is moved.
        others_K: (K,) points that are not among the rows and stay in their clusters.
    """
    flow = _Flow(values_KU, amounts_U, prices_K, bounds, others_K, rounding)
    # Where much is off, prices are coarse: they are mended coarsely first, many points at a time.
    coarse, finer, off = math.inf, _FINER, flow.rows_off()
    while off > len(values_KU):
        coarse = min(coarse, flow.furthest()) / finer
        if coarse <= max(tolerance, flow.rounded()) or not math.isfinite(coarse):
            break
        flow.solve(coarse)
        flow = _Flow(values_KU, amounts_U, flow.prices_S[:-1], bounds, others_K, rounding)
        before, off = off, flow.rows_off()
        finer = _FINER if off < before / 2 else finer * _FINER  # ever faster where it does not help
    flow.solve(tolerance)
    return Assigned(
        rows=flow.rows_P,
        labels=flow.labels_P,
        amounts=flow.amounts_P,
        prices=flow.prices_S[:-1],
        sizes=flow.held_K + flow.excess_S[:-1],
        complete=flow.off() == 0,
    )


def highest(values_KU: NDArray[Any], prices_K: NDArray[Any]) -> Ints:
    """The cluster (U,) of the highest value plus price."""
    prices_K1 = prices_K.astype(values_KU.dtype)[:, None]
    parts = (
        (values_KU[:, first : first + _CHUNK] + prices_K1).T.argmax(axis=1)
        for first in range(0, values_KU.shape[1], _CHUNK)
    )
    return np.concatenate(list(parts))


class _Flow:
    """Pieces of rows in clusters, and the graph of their cheapest moves."""

    def __init__(
        self,
        values_KU: NDArray[Any],
        amounts_U: Ints,
        prices_K: NDArray[Any],
        bounds: SizeBounds,
        others_K: Ints | None,
        rounding: float,
    ) -> None:
        k = len(values_KU)
        self.values_KU, self.rounding, self.tolerance = values_KU, rounding, 0.0
        self.lower, self.upper = int(bounds.lower), bounds.upper
        prices_K = np.asarray(prices_K, dtype=np.float64)
        if math.isinf(self.upper):
            prices_K = prices_K.clip(min=0)
        self.prices_S = np.append(prices_K, 0.0)
        labels_U = highest(values_KU, prices_K)
        self.rows_P, self.labels_P = np.arange(len(labels_U)), labels_U
        self.amounts_P = amounts_U.copy()
        own_U = values_KU[labels_U, self.rows_P]
        self.largest = float(np.abs(own_U).max(initial=0))
        sizes_K = np.bincount(labels_U, amounts_U, minlength=k).astype(np.int64)
        sizes_K = sizes_K if others_K is None else sizes_K + others_K
        upper = min(self.upper, int(sizes_K.sum()))
        # A price is paid for a bound that is met exactly; without a price any size between will do.
        self.held_K = np.where(
            prices_K > 0,
            self.lower,
            np.where(prices_K < 0, upper, sizes_K.clip(self.lower, upper)),
        ).astype(np.int64)
        self.excess_S = np.append(sizes_K - self.held_K, self.held_K.sum() - sizes_K.sum())
        self.members = np.split(
            np.argsort(labels_U, kind="stable"),
            np.cumsum(np.bincount(labels_U, minlength=k))[:-1],
        )
        self.costs_SS = np.full((k + 1, k + 1), np.inf)
        if self.off():
            for a, members in enumerate(self.members):
                if len(members):
                    values_KM = values_KU[:, members]
                    self.costs_SS[a, :k] = (values_KM[a] - values_KM).min(axis=1)
            np.fill_diagonal(self.costs_SS, np.inf)
        self._look_at_slack()

    def off(self) -> int:
        """Points that are too many somewhere."""
        return int(self.excess_S.clip(min=0).sum())

    def rows_off(self) -> int:
        """How few rows hold the points that are too many."""
        rows = 0
        for cluster in np.flatnonzero(self.excess_S[:-1] > 0).tolist():
            largest = np.sort(self.amounts_P[self.members[cluster]])[::-1]
            rows += 1 + int(np.searchsorted(np.cumsum(largest), self.excess_S[cluster]))
        return max(rows, int(self.excess_S[-1]))

    def furthest(self) -> float:
        """How much the dearest of the paths costs that are needed next; infinite for none."""
        distances_S, _, lacking = self._paths()
        return float(distances_S[lacking].max()) if len(lacking) else math.inf

    def rounded(self) -> float:
        """What rounding may make of a move that loses nothing.

        Only values of clusters count that a point may go to: that of its own one, and those that
        differ from it by no more than prices do. A far cluster's value may be much larger.
        """
        return self.rounding * (self.largest + 2 * float(np.abs(self.prices_S).max()))

    def solve(self, tolerance: float) -> None:
        """Rounds until sizes keep their bounds, or no path is left."""
        self.tolerance = max(tolerance, self.rounded())
        while self.off() and self._improve():
            self.tolerance = max(tolerance, self.rounded())

    def _paths(self) -> tuple[Floats, Ints, Ints]:
        """Distances (S,) from what is too much, the node (S,) before each, and nodes that lack."""
        reduced_SS = self.costs_SS + (self.prices_S[:, None] - self.prices_S)
        # What counts as free is charged, so that paths have no more moves than they need.
        reduced_SS = reduced_SS.clip(min=0) + self.tolerance
        distances_S, before_S = shortest_paths(reduced_SS, self.excess_S > 0)
        return (
            distances_S,
            before_S,
            np.flatnonzero((self.excess_S < 0) & np.isfinite(distances_S)),
        )

    def _improve(self) -> bool:
        """One round: shortest paths from all excess, then points along them. False for none."""
        distances_S, before_S, lacking = self._paths()
        if not len(lacking):
            return False
        # Every arc of a shortest path now costs nothing, and no arc less than nothing.
        distances_S = np.minimum(distances_S, distances_S[lacking].max())
        self.prices_S += distances_S - distances_S[-1]
        if self.lower == self.upper:
            self.prices_S[-1] = 0.0
        self.tolerance = max(self.tolerance, self.rounded())  # prices have grown
        moved = 0
        for target in lacking[np.argsort(distances_S[lacking], kind="stable")].tolist():
            path = [target]
            while before_S[path[-1]] >= 0:
                path.append(int(before_S[path[-1]]))
            moved += self._send(path[::-1])
        return moved > 0

    def _send(self, path: list[int]) -> int:
        """Moves as many points along the path as are free to move; returns how many."""
        amount = min(self.excess_S[path[0]], -self.excess_S[path[-1]])
        arcs = list(itertools.pairwise(path))
        slack = len(self.prices_S) - 1
        if any(self._cost(a, b) > self.tolerance for a, b in arcs if slack not in (a, b)):
            return 0  # an earlier path of this round took the points of an arc
        free: dict[tuple[int, int], Ints] = {}
        for a, b in arcs:
            if amount <= 0:
                return 0
            if b == slack:
                amount = min(amount, self.upper - self.held_K[a])
            elif a == slack:
                amount = min(amount, self.held_K[b] - self.lower)
            else:
                free[a, b] = self._free(a, b)
                amount = min(amount, self.amounts_P[free[a, b]].sum())
        if amount <= 0:
            return 0
        amount = int(amount)
        for a, b in arcs:
            if b == slack:
                self.held_K[a] += amount
            elif a == slack:
                self.held_K[b] -= amount
            else:
                self._move(free[a, b], a, b, amount)
        self.excess_S[path[0]] -= amount
        self.excess_S[path[-1]] += amount
        self._look_at_slack()
        return amount

    def _cost(self, a: int, b: int) -> float:
        """What the cheapest move from a to b loses at the prices."""
        return float(self.costs_SS[a, b] + self.prices_S[a] - self.prices_S[b])

    def _free(self, a: int, b: int) -> Ints:
        """Pieces of a that lose nothing by moving to b, the cheapest first."""
        members = self.members[a]
        rows = self.rows_P[members]
        losses = self.values_KU[a, rows] - self.values_KU[b, rows]
        losses = losses + (self.prices_S[a] - self.prices_S[b])
        free = np.flatnonzero(losses <= self.tolerance)
        return members[free[np.argsort(losses[free], kind="stable")]]

    def _move(self, pieces: Ints, a: int, b: int, amount: int) -> None:
        """Moves so many points of the pieces, the first ones first, and splits the last of them."""
        ends = np.cumsum(self.amounts_P[pieces])
        last = int(np.searchsorted(ends, amount))
        pieces = pieces[: last + 1]
        rest = int(ends[last]) - amount
        if rest:  # a new piece of the same row stays behind
            self.amounts_P[pieces[-1]] -= rest
            self.rows_P = np.append(self.rows_P, self.rows_P[pieces[-1]])
            self.labels_P = np.append(self.labels_P, a)
            self.amounts_P = np.append(self.amounts_P, rest)
            self.members[a] = np.append(self.members[a], len(self.rows_P) - 1)
        self.labels_P[pieces] = b
        self.members[a] = self.members[a][self.labels_P[self.members[a]] == a]
        self.members[b] = np.concatenate([self.members[b], pieces])
        values_KM = self.values_KU[:, self.rows_P[pieces]]
        k = len(self.values_KU)
        self.costs_SS[b, :k] = np.minimum(self.costs_SS[b, :k], (values_KM[b] - values_KM).min(1))
        self.costs_SS[b, b] = np.inf
        gone_K = (values_KM[a] - values_KM).min(axis=1)
        self._look_again(a, np.flatnonzero(gone_K <= self.costs_SS[a, :k]))

    def _look_again(self, a: int, targets: Ints) -> None:
        """The cheapest moves from a to these clusters."""
        rows = self.rows_P[self.members[a]]
        if not len(rows):
            self.costs_SS[a, targets] = np.inf
            return
        values_TM = self.values_KU[targets[:, None], rows]
        self.costs_SS[a, targets] = (self.values_KU[a, rows] - values_TM).min(axis=1)
        self.costs_SS[a, a] = np.inf

    def _look_at_slack(self) -> None:
        """A cluster can hand points to the slack below its upper bound, and take some above its
        lower one."""
        self.costs_SS[:-1, -1] = np.where(self.held_K < self.upper, 0.0, np.inf)
        self.costs_SS[-1, :-1] = np.where(self.held_K > self.lower, 0.0, np.inf)
