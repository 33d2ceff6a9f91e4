"""NT-Xent by hand."""

from __future__ import annotations

import math

import pytest
import torch

from coke.tools.bench.peers.simclr import nt_xent


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
