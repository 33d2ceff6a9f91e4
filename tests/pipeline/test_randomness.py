"""Numbers that depend on nothing but what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from coke.pipeline.randomness import key_of, mix, uniforms

#: Recorded once with the call of test_uniforms_are_pinned.
PINNED = [
    [0.24480256676056844, 0.2926262467191131],
    [0.34310834177676064, 0.5091643553227688],
    [0.652633953869143, 0.6256620017516854],
]


def splitmix64(state: int) -> int:
    """SplitMix64 in plain integers, from the paper (Steele et al., OOPSLA 2014)."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix_is_splitmix64() -> None:
    inputs = [0, 1, 2, 1 << 32, (1 << 63) + 12345, (1 << 64) - 1]
    expected = [splitmix64(x) for x in inputs]
    assert expected[0] == 0xE220A8397B1DCDAF  # the published first output for seed 0
    assert mix(np.array(inputs, dtype=np.uint64)).tolist() == expected


def test_keys_depend_on_every_part_and_their_order() -> None:
    parts = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (1, 2, 0), (-1,), (1 << 40,)]
    assert len({int(key_of(*p)) for p in parts}) == len(parts)
    assert int(key_of(7)) == splitmix64(0 ^ splitmix64(7))


def test_uniforms_are_pinned() -> None:
    """Recorded once: augmentations of a seed never change between versions."""
    drawn = uniforms(key_of(1, 2, 3), np.array([0, 1, 1_000_000]), 2)
    assert drawn.tolist() == PINNED


def test_a_row_depends_on_its_id_alone() -> None:
    key = key_of(5)
    together = uniforms(key, np.arange(100), 4)
    picked = np.array([99, 3, 3, 50])
    np.testing.assert_array_equal(uniforms(key, picked, 4), together[picked])
    np.testing.assert_array_equal(uniforms(key, picked, 2), together[picked][:, :2])


def test_other_keys_give_other_numbers() -> None:
    ids = np.arange(1000)
    a, b = uniforms(key_of(0), ids, 1)[:, 0], uniforms(key_of(1), ids, 1)[:, 0]
    assert not (a == b).any()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1  # 3 standard errors


@pytest.mark.parametrize("column", [0, 1, 29])
def test_uniforms_are_uniform(column: int) -> None:
    drawn = uniforms(key_of(9), np.arange(20_000), 30)[:, column]
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=10, range=(0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 33.7  # 9 degrees of freedom: exceeded once in 10,000


def test_columns_and_neighbouring_ids_are_uncorrelated() -> None:
    drawn = uniforms(key_of(3), np.arange(20_000), 5)
    correlation = np.corrcoef(drawn.T) - np.eye(5)
    assert np.abs(correlation).max() < 0.03  # 4 standard errors
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.03
