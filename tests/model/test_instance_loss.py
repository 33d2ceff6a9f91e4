"""The instance term by hand."""

from __future__ import annotations

import math

import pytest
import torch

from coke.model.instance_loss import instance_loss, nt_xent


def test_two_images_by_hand() -> None:
    """Image 0 has the same feature twice, image 1 two opposite ones.

    Similarities: f0 = f0' = (1, 0); f1 = (0, 1), f1' = (0, -1). For f0 and f0': 1 for the other
    view, 0 and 0 for the others. For f1 and f1': -1 for the other view, 0 and 0 for the others.
    """
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    t = 0.5
    same = -math.log(math.exp(1 / t) / (math.exp(1 / t) + 2))
    opposite = -math.log(math.exp(-1 / t) / (math.exp(-1 / t) + 2))
    assert nt_xent(first, second, t).item() == pytest.approx((same + opposite) / 2, abs=1e-6)


def test_agrees_with_the_sum_written_out() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=2)
    z, t = torch.cat([first, second]).double(), 0.2
    total = 0.0
    for i in range(10):
        j = (i + 5) % 10
        others = [math.exp(float(z[i] @ z[k]) / t) for k in range(10) if k != i]
        total -= math.log(math.exp(float(z[i] @ z[j]) / t) / sum(others))
    assert nt_xent(first, second, t).item() == pytest.approx(total / 10, abs=1e-5)


def test_three_views_have_the_mean_of_their_pairs() -> None:
    torch.manual_seed(0)
    a, b, c = torch.nn.functional.normalize(torch.randn(3, 4, 6), dim=2)
    pairs = [nt_xent(a, b, 0.5), nt_xent(a, c, 0.5), nt_xent(b, c, 0.5)]
    torch.testing.assert_close(instance_loss([a, b, c], 0.5), torch.stack(pairs).mean())


def test_no_rows_and_a_single_image_have_no_loss() -> None:
    """Nobody is to be told apart; a mean over nothing would be NaN."""
    one = torch.tensor([[1.0, 0.0]], requires_grad=True)
    assert nt_xent(one, one, 0.5).item() == 0
    none = torch.zeros(0, 2, requires_grad=True)
    loss = nt_xent(none, none, 0.5)
    loss.backward()
    assert loss.item() == 0
