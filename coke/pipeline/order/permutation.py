"""Permutations that are computed position by position: nobody stores one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.randomness import U64, key_of, mix

Ids = NDArray[np.int64]

_ROUNDS = 6
_PURPOSE = 0x0DE7  # keys of permutations: no other random number shares them


def permute(positions: Ids, *, seed: int, epoch: int, n: int) -> Ids:
    """The values (P,) at these positions (P,) of an epoch's permutation of 0..n-1."""
    return keyed_permutation(positions, n, seed, epoch)


def keyed_permutation(positions: Ids, n: int, *key: int) -> Ids:
    """The values at these positions of the permutation of 0..n-1 that the key names.

    A Feistel network over the smallest domain of an even number of bits that holds n, with cycle
    walking: each position is computed on its own.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    low_mask = np.uint64((1 << int(half)) - 1)
    round_keys = [key_of(_PURPOSE, *key, r) for r in range(_ROUNDS)]

    def encrypt(x: U64) -> U64:
        left, right = x >> half, x & low_mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & low_mask)
        return (left << half) | right

    ids = encrypt(positions.astype(np.uint64))
    outside = ids >= n
    while outside.any():  # cycle walking: the domain is at most 4 n, so this ends quickly
        ids[outside] = encrypt(ids[outside])
        outside = ids >= n
    return ids.astype(np.int64)
