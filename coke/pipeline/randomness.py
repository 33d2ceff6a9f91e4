"""Counter-based randomness: numbers that are a pure function of their purpose.

Augmentations and the order are drawn from here instead of from a generator with a state. So a
loader resumes from a few integers, at any step and on any number of ranks, with identical pixels.
The mixing function is SplitMix64's finaliser (Steele et al., OOPSLA 2014). Nothing here depends on
the version of numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: U64) -> U64:
    """Bijectively scrambles 64-bit integers, element by element."""
    with np.errstate(over="ignore"):
        z = x + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def key_of(*parts: int) -> U64:
    """Folds integers (seed, epoch, purpose, ...) into one 0-d key."""
    key = np.zeros((), dtype=np.uint64)
    for part in parts:
        key = mix(key ^ mix(np.asarray(part & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)))
    return key


def uniforms(key: U64, ids: NDArray[np.int64], columns: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape (B, columns), decided by the key and each id alone."""
    row = mix(key ^ mix(ids.astype(np.uint64)))[:, None]
    cell = mix(row + np.arange(columns, dtype=np.uint64)[None, :] * _GOLDEN)
    return (cell >> np.uint64(11)).astype(np.float64) * 2.0**-53
