"""Which ids come when: a pure function of seed, epoch, world size and position.

The permutation is a Feistel network over the smallest even-bit domain that holds n, with cycle
walking: any position is computed on its own, so no rank ever stores a permutation, and starting at
position p costs the same as starting at 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.randomness import U64, key_of, mix

_ROUNDS = 6
_PURPOSE = 0x0DE7


def permute(positions: NDArray[np.int64], *, seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The ids at these positions of the epoch's permutation of 0..n-1."""
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    low_mask = np.uint64((1 << int(half)) - 1)
    keys = [key_of(_PURPOSE, seed, epoch, r) for r in range(_ROUNDS)]

    def encrypt(x: U64) -> U64:
        left, right = x >> half, x & low_mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low_mask)
        return (left << half) | right

    ids = encrypt(positions.astype(np.uint64))
    outside = ids >= n
    while outside.any():  # cycle walking: the domain is at most 4 n, so this ends quickly
        ids[outside] = encrypt(ids[outside])
        outside = ids >= n
    return ids.astype(np.int64)


def order(
    seed: int, epoch: int, n: int, world: int = 1, rank: int = 0, start: int = 0
) -> NDArray[np.int64]:
    """The ids rank ``rank`` of ``world`` sees in an epoch from global position ``start`` on.

    Over one epoch every id comes exactly once across the ranks. Rank r takes every ``world``-th
    position, so the global batch at step s (all ranks' local batches together) is the same set of
    positions at every world size.

    Raises:
        ValueError: rank outside 0..world-1, or start outside 0..n.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank} in a world of {world}; ranks are 0..{world - 1}")
    if not 0 <= start <= n:
        raise ValueError(f"start is {start}; positions of {n} images are 0..{n}")
    return permute(np.arange(start + rank, n, world), seed=seed, epoch=epoch, n=n)
