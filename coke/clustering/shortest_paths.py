"""Shortest paths in a small dense graph, from several nodes at once.

Shapes: S nodes, F nodes whose distance has just changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shortest_paths(
    costs_SS: NDArray[np.float64], sources_S: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances (S,) from the nearest source, and the node (S,) before each on its path.

    Paths between clusters have few arcs, so a handful of rounds settles all nodes together
    (Bellman and Ford), where Dijkstra's rule would take the nodes one by one.

    Args:
        costs_SS: (S, S) cost of the arc from a row's node to a column's, 0 or more; infinite for
            none.
        sources_S: (S,) where paths start.

    Returns: an infinite distance where no path leads; -1 for the node before a source.
    """
    distances_S = np.where(sources_S, 0.0, np.inf)
    before_S = np.full(len(distances_S), -1)
    changed_F = np.flatnonzero(sources_S)
    while len(changed_F):
        through_FS = distances_S[changed_F, None] + costs_SS[changed_F]
        shortest_S = through_FS.min(axis=0)
        better = np.flatnonzero(shortest_S < distances_S)
        before_S[better] = changed_F[through_FS[:, better].argmin(axis=0)]
        distances_S[better] = shortest_S[better]
        changed_F = better
    return distances_S, before_S
