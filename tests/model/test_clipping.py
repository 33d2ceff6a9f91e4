"""Clipping by hand, and against torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from coke.model.clipping import clip_gradients


def gradients(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor(row) for row in rows]


def test_a_norm_of_5_is_shrunk_to_1_and_one_below_stays() -> None:
    found = gradients([3.0], [0.0, 4.0])
    clip_gradients(found, 1.0)
    torch.testing.assert_close(torch.cat(found), torch.tensor([0.6, 0.0, 0.8]))
    kept = gradients([0.3], [0.0, 0.4])
    clip_gradients(kept, 1.0)
    assert torch.equal(torch.cat(kept), torch.tensor([0.3, 0.0, 0.4]))


@pytest.mark.parametrize("largest", [0.1, 3.0, 1000.0])
def test_it_is_torchs_clip_grad_norm(largest: float) -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.zeros(5, 7)), nn.Parameter(torch.zeros(11))]
    for p in weights:
        p.grad = 3 * torch.randn_like(p)
    found = [p.grad.clone() for p in weights if p.grad is not None]
    clip_gradients(found, largest)
    nn.utils.clip_grad_norm_(weights, largest)
    for ours, p in zip(found, weights, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(ours, p.grad)


def test_the_norm_is_that_of_unscaled_gradients() -> None:
    scale = 1024.0
    found = gradients([3 * scale], [4 * scale])
    clip_gradients(found, 1.0, torch.tensor(scale))
    torch.testing.assert_close(torch.cat(found) / scale, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_leaves_the_whole_step_out(bad: float) -> None:
    found = gradients([1.0], [bad, 1.0])
    clip_gradients(found, 1.0)
    assert torch.cat(found).isnan().all()


def test_no_gradients_are_no_error() -> None:
    clip_gradients([], 1.0)
