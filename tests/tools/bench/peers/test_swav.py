"""Sinkhorn and the swapped loss by hand; prototypes stay on the sphere."""

from __future__ import annotations

import math

import pytest
import torch

from coke.config.model import ModelConfig
from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import build_model
from coke.tools.bench.peers.swav import SwAV, sinkhorn, swapped_loss

SMALL = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8)
SGD = OptimizerConfig(name="sgd", lr=0.1)


def test_one_sinkhorn_iteration_by_hand() -> None:
    """exp(scores) is [[1, 2], [1, 6]]: columns sum to 2 and 8, then rows to 3/4 and 5/4."""
    scores = torch.tensor([[1.0, 2.0], [1.0, 6.0]]).log()
    expected = torch.tensor([[0.5 / 0.75, 0.25 / 0.75], [0.5 / 1.25, 0.75 / 1.25]])
    torch.testing.assert_close(sinkhorn(scores, eps=1.0, iterations=1), expected)


def test_sinkhorn_balances_what_the_argmax_would_not() -> None:
    """Every image is nearest to prototype 0; balanced, half of the mass goes to 1."""
    torch.manual_seed(0)
    scores = torch.stack([torch.full((8,), 0.9), 0.5 + 0.1 * torch.rand(8)], dim=1)
    shares = sinkhorn(scores, eps=0.05, iterations=50)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
    torch.testing.assert_close(shares.sum(dim=0), torch.full((2,), 4.0), atol=1e-3, rtol=0)


def test_sinkhorn_does_not_overflow() -> None:
    shares = sinkhorn(torch.tensor([[100.0, 99.0], [99.0, 100.0]]))
    torch.testing.assert_close(shares, torch.eye(2), atol=1e-6, rtol=0)


def test_swapped_loss_by_hand() -> None:
    """Each view's softmax is scored with the other's codes."""
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    codes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25, 0.75]])
    log_first = [1 - math.log(math.e + 1), -math.log(math.e + 1)]
    log_second = [-math.log(1 + math.e**2), 2 - math.log(1 + math.e**2)]
    expected = (-(0.25 * log_first[0] + 0.75 * log_first[1]) - log_second[0]) / 2
    loss = swapped_loss((first, second), codes, temperature=1.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_prototypes_are_normalised_and_frozen_at_first() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, seed=0).train()
    swav = SwAV(model, SGD, "fp32", prototypes=6, frozen_steps=1)
    start = torch.nn.functional.normalize(swav.prototypes.weight.detach(), dim=1)
    views, ids = list(torch.randn(2, 4, 3, 16, 16)), torch.arange(4)
    swav.step(views, ids)
    torch.testing.assert_close(swav.prototypes.weight.detach(), start)
    swav.step(views, ids)
    moved = (swav.prototypes.weight.detach() - start).norm(dim=1)
    assert (moved > 1e-4).all()


def test_the_queue_takes_part_only_when_it_is_full() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, seed=0).train()
    swav = SwAV(model, SGD, "fp32", prototypes=6, queue=8)
    features = torch.nn.functional.normalize(torch.randn(3, 4, 8), dim=2)
    with torch.no_grad():
        scores = [swav.prototypes(f) for f in features]
    for number in (0, 1):  # the queue fills
        alone = sinkhorn(scores[number])
        torch.testing.assert_close(swav._codes(0, scores[number], features[number]), alone)
    joint = sinkhorn(torch.cat([scores[2], scores[0], scores[1]]))[:4]
    torch.testing.assert_close(swav._codes(0, scores[2], features[2]), joint)
