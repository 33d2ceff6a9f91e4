"""Effective ranks by hand."""

from __future__ import annotations

import math

import pytest
import torch

from coke.tools.evaluation.effective_rank import effective_rank


def rank(features: torch.Tensor) -> float:
    found = effective_rank(features)
    assert found is not None
    return found


def test_features_in_one_direction_have_rank_1() -> None:
    """However many there are, and also where they are multiples of each other."""
    for n in (1, 3, 500):
        assert rank(torch.ones(n, 40)) == 1
    multiples = torch.tensor([[1.0], [-3.0], [0.5]]) @ torch.tensor([[0.6, 0.8, 0.1, -7.0]])
    assert rank(multiples) == 1


@pytest.mark.parametrize("dim", [1, 2, 16, 100])
def test_orthonormal_directions_have_the_rank_of_their_number(dim: int) -> None:
    basis, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
    assert rank(basis) == pytest.approx(dim)
    assert rank(basis.repeat(5, 1)) == pytest.approx(dim), "each five times"
    assert rank(torch.cat([basis, torch.zeros(7, dim)])) == pytest.approx(dim), "zeros count not"
    wider = torch.cat([basis, torch.zeros(dim, 3 * dim)], dim=1)
    assert rank(wider) == pytest.approx(dim), "nor do dimensions that no feature has"


def test_singular_values_3_and_1_by_hand() -> None:
    """Shares 3/4 and 1/4: exp(-(3/4 ln 3/4 + 1/4 ln 1/4)) = 4 / 3 ** (3 / 4)."""
    features = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert rank(features) == pytest.approx(4 / 3**0.75)
    # The same by two rows of a rotation, so that nothing is aligned with an axis.
    turned = features @ torch.linalg.qr(torch.randn(3, 3))[0]
    assert rank(turned) == pytest.approx(4 / 3**0.75, rel=1e-5)


def test_is_that_of_all_singular_values() -> None:
    """Two implementations, for more images than dimensions and for fewer."""
    dim = 12
    generator = torch.Generator().manual_seed(0)
    for n in (5, 300):
        features = torch.randn(n, dim, generator=generator) * torch.logspace(0, -3, dim)
        shares = torch.linalg.svdvals(features.double())
        shares /= shares.sum()
        expected = math.exp(torch.special.entr(shares).sum())
        assert rank(features) == pytest.approx(expected, rel=1e-6)


def test_the_scale_does_not_matter_and_a_shift_does() -> None:
    """Features are not centered: a large shift is one direction that outweighs the others."""
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    for scale in (1e-42, 1e-30, 1e-3, 1e30):  # below 1e-38 float32 has fewer digits
        assert rank(features * scale) == pytest.approx(rank(features), rel=1e-2)
    assert rank(features * 1e-30) == pytest.approx(rank(features), rel=1e-6)
    assert rank(features) > 7.5
    shifted = [rank(features + shift) for shift in (1.0, 10.0, 1000.0)]
    assert 7.5 > shifted[0] > shifted[1] > shifted[2] > 1
    assert shifted[2] < 1.05


def test_half_precision_is_taken_as_it_is() -> None:
    features = torch.eye(6).repeat(3, 1)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert rank(features.to(dtype)) == pytest.approx(6)


@pytest.mark.parametrize(
    "features",
    [
        torch.zeros(4, 3),
        torch.zeros(0, 3),
        torch.tensor([[1.0, math.nan]]),
        torch.tensor([[1.0, math.inf]]),
    ],
    ids=["zeros", "none", "NaN", "infinite"],
)
def test_features_without_a_rank(features: torch.Tensor) -> None:
    assert effective_rank(features) is None
