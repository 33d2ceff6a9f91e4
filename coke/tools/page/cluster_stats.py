"""Numbers of each cluster of a head: size, purity, compactness; and which clusters are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coke.tools.page.survey import Assigned


@dataclass(frozen=True, kw_only=True)
class ClusterStats:
    """A head's clusters, K of them.

    Attributes:
        sizes: (K,), rows of each.
        distance: (K,), mean distance of its rows to its center; NaN for an empty one.
        purities: (K,), share of its rows with a class that have its most frequent class; NaN where
            no row has a class, and without classes.
        top_class: (K,), its most frequent class, -1 for none.
        with_class: (K,), rows of each cluster that have a class.
    """

    name: str
    sizes: NDArray[np.int64]
    distance: NDArray[np.float64]
    purities: NDArray[np.float64]
    top_class: NDArray[np.int64]
    with_class: NDArray[np.int64]

    @property
    def filled(self) -> NDArray[np.int64]:
        """Numbers of the clusters that are not empty."""
        return np.flatnonzero(self.sizes)

    @property
    def classified(self) -> int:
        """Rows that have a cluster and a class."""
        return int(self.with_class.sum())

    @property
    def purity(self) -> float | None:
        """Share of the rows with a class whose class is their cluster's most frequent one."""
        if not self.classified:
            return None
        return float(np.nansum(self.purities * self.with_class) / self.classified)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The clusters of a head that are shown.

    Attributes:
        clusters: their numbers, ascending.
        ends: so many first and last clusters by each number are among them; 0 where all are shown.
        keys: names of those numbers.
    """

    clusters: NDArray[np.int64]
    ends: int
    keys: tuple[str, ...] = ()


def stats_of(head: Assigned, classes_N: NDArray[np.int64] | None) -> ClusterStats:
    """The numbers of a head's clusters.

    Args:
        classes_N: class of each row, -1 for none; None without classes.
    """
    k = head.n_clusters
    has = head.labels >= 0
    labels_R = head.labels[has]
    sizes_K = np.bincount(labels_R, minlength=k)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance_K = np.bincount(labels_R, weights=head.distances[has], minlength=k) / sizes_K
    purity_K, class_K = np.full(k, np.nan), np.full(k, -1, dtype=np.int64)
    classified_K = np.zeros(k, dtype=np.int64)
    if classes_N is not None:
        clusters, classes, counts = class_counts(labels_R, classes_N[has])
        classified_K = np.bincount(clusters, weights=counts, minlength=k).astype(np.int64)
        order = np.lexsort((classes, -counts, clusters))  # the most frequent class first
        first = order[np.unique(clusters[order], return_index=True)[1]]
        class_K[clusters[first]] = classes[first]
        purity_K[clusters[first]] = counts[first] / classified_K[clusters[first]]
    return ClusterStats(
        name=head.name,
        sizes=sizes_K,
        distance=distance_K,
        purities=purity_K,
        top_class=class_K,
        with_class=classified_K,
    )


def class_counts(
    labels_R: NDArray[np.int64], classes_R: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cluster, class and number of rows of every pair that occurs, by cluster."""
    known = classes_R >= 0
    if not known.any():
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    base = int(classes_R.max()) + 1
    pairs, counts = np.unique(labels_R[known] * base + classes_R[known], return_counts=True)
    return pairs // base, pairs % base, counts


def shares(filled: Sequence[int], cards: int) -> list[int]:
    """How many clusters of each head are shown: all of small heads, equal numbers of others.

    Args:
        filled: clusters of each head that are not empty.
        cards: clusters that are shown of all heads together.
    """
    found = [0] * len(filled)
    left = cards
    for place, head in enumerate(sorted(range(len(filled)), key=lambda h: filled[h])):
        found[head] = min(filled[head], max(1, left // (len(filled) - place)))
        left -= found[head]
    return found


def choose(stats: ClusterStats, count: int, rng: np.random.Generator) -> Chosen:
    """Chooses clusters: the ends of each order in which a reader may sort, the others at random."""
    filled = stats.filled
    if len(filled) <= count:
        return Chosen(clusters=filled, ends=0)
    keys = {"size": stats.sizes.astype(np.float64), "compactness": stats.distance}
    if stats.classified:
        keys["purity"] = stats.purities
    ends = count // (3 * len(keys))  # at most two thirds of all that are shown
    chosen: set[int] = set()
    for values_K in keys.values():
        known = filled[~np.isnan(values_K[filled])]
        order = known[np.argsort(values_K[known], kind="stable")].tolist()
        chosen.update(order[:ends])
        chosen.update(order[len(order) - ends :])
    others = np.setdiff1d(filled, np.fromiter(chosen, np.int64, len(chosen)))
    chosen.update(rng.choice(others, count - len(chosen), replace=False).tolist())
    return Chosen(clusters=np.array(sorted(chosen)), ends=ends, keys=tuple(keys))
