"""The sweeps of a batch on a CPU, see ``streaming_assignment``.

A sweep is two dozen operations on small arrays, of which torch needs several times as long to start
one as numpy.

Shapes: B batch, S sub-batch (sweep), K clusters.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coke.clustering.sizes import SizeBounds
from coke.clustering.stream import PUSH, Stream

Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]


def sweeps_in_numpy(
    similarities_BK: Floats,
    before_B: Labels,
    duals_K: Floats,
    sizes_K: Floats,
    stream: Stream,
    step: float,
) -> tuple[Labels, Floats, Floats]:
    """Labels (B,), duals and sizes (K,) after a batch.

    Args:
        step: dual step per point.
    """
    n, k = stream.n_points, len(duals_K)
    sizes_K = sizes_K.copy()
    labels_B = np.empty_like(before_B)
    known = float(sizes_K.sum()) / n  # share of all points that have a label
    priced = np.empty_like(similarities_BK[: stream.sweep])
    for start in range(0, len(before_B), stream.sweep):
        rows = slice(start, start + stream.sweep)
        before_S = before_B[rows]
        size = len(before_S)
        np.add(similarities_BK[rows], duals_K, out=priced[:size])
        wanted_S = priced[:size].argmax(axis=1)
        source_S = before_S[before_S >= 0]
        left_K = np.bincount(source_S, minlength=k)
        change_K = np.bincount(wanted_S, minlength=k) - left_K
        held_S = _held(before_S, wanted_S, sizes_K, stream.held)
        wanted_S[held_S] = before_S[held_S]
        labels_B[rows] = wanted_S
        given_K = np.bincount(wanted_S, minlength=k) - left_K if len(held_S) else change_K
        seen = len(source_S) / n
        unseen = size / n - seen
        duals_K = _moved(duals_K, change_K, sizes_K, seen, unseen, known, stream.steered, step)
        sizes_K += given_K
    return labels_B, duals_K, sizes_K


def _held(before_S: Labels, wanted_S: Labels, sizes_K: Floats, held: float) -> Labels:
    """Who would leave a cluster that has nobody to spare; those leave first who come first."""
    leavers = np.flatnonzero((before_S != wanted_S) & (before_S >= 0))
    sources = before_S[leavers]
    scarce = sizes_K[sources] - len(leavers) <= held  # all others may go, whoever goes with them
    left: dict[int, int] = {}
    kept = []
    for row, source in zip(leavers[scarce].tolist(), sources[scarce].tolist(), strict=True):
        ahead = left.get(source, 0)
        if sizes_K[source] - ahead <= held:
            kept.append(row)
        left[source] = ahead + 1
    return np.array(kept, dtype=np.int64)


def _moved(
    duals_K: Floats,
    change_K: Labels,
    sizes_K: Floats,
    seen: float,
    unseen: float,
    known: float,
    bounds: SizeBounds,
    step: float,
) -> Floats:
    """Duals (K,) after one step; a dual that would change its sign stops at zero.

    Args:
        change_K: points that the clusters won or lost in this sweep.
        seen, unseen: share of all points that are in this sweep, with a label before and without.
        known: share of all points that have a label.
    """
    free_K = duals_K - np.float32(step) * change_K.astype(np.float32)
    drawn_K: Floats = free_K - np.float32(step) * _off(sizes_K, bounds.lower, seen, unseen, known)
    if bounds.lower == 0:  # nothing to be drawn in for
        drawn_K = np.zeros_like(duals_K)
    if math.isinf(bounds.upper):
        return np.maximum(drawn_K, np.float32(0))
    if bounds.lower == bounds.upper:  # an equality, whose duals take any sign
        return drawn_K
    kept_out_K = free_K - np.float32(step) * _off(sizes_K, bounds.upper, seen, unseen, known)
    return np.where(drawn_K > 0, drawn_K, np.minimum(kept_out_K, 0))


def _off(sizes_K: Floats, bound: float, seen: float, unseen: float, known: float) -> Floats:
    """The part of the gradient (K,) that is no news: how far sizes are above their bound."""
    above_K = sizes_K - np.float32(bound * known)
    above_K += np.float32(PUSH * bound) * np.sign(above_K)
    above_K *= np.float32(seen)
    above_K -= np.float32(unseen * bound)
    return above_K
