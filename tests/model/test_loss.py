"""The discrimination loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.model.loss import coke_loss, discrimination_loss

CENTERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
FEATURES = torch.tensor([[0.8, 0.6], [0.0, 1.0]])


def random_features(seed: int, rows: int, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def test_two_clusters_by_hand() -> None:
    """At temperature 0.5 the logits are (1.6, 1.2) and (0, 2)."""
    loss = discrimination_loss(FEATURES, CENTERS, torch.tensor([0, 0]), 0.5)
    expected = (math.log(1 + math.exp(-0.4)) + math.log(1 + math.exp(2.0))) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_soft_targets_by_hand() -> None:
    soft = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    loss = discrimination_loss(FEATURES, CENTERS, soft, 0.5)
    first = 0.75 * math.log(1 + math.exp(-0.4)) + 0.25 * math.log(1 + math.exp(0.4))
    expected = (first + math.log(1 + math.exp(-2.0))) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_hard_labels_equal_one_hot_soft_labels() -> None:
    x, centers = random_features(0, 7), random_features(1, 4)
    labels = torch.tensor([0, 3, 1, 1, 2, 0, 3])
    hard = discrimination_loss(x, centers, labels, 0.1)
    soft = discrimination_loss(x, centers, F.one_hot(labels, 4).float(), 0.1)
    torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_beta_mixes_predictor_and_projector(beta: float) -> None:
    projected, predicted = random_features(0, 6), random_features(1, 6)
    centers = [random_features(2, 3), random_features(3, 4)]
    targets = [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 2, 1, 0, 3, 2])]

    def plain(x: Tensor) -> float:
        each = [
            -float(F.log_softmax(x @ c.T / 0.2, 1)[i, t[i]])
            for c, t in zip(centers, targets, strict=True)
            for i in range(6)
        ]
        return sum(each) / len(each)

    loss = coke_loss(projected, predicted, centers, targets, temperature=0.2, beta=beta)
    expected = beta * plain(predicted) + (1 - beta) * plain(projected)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_without_a_predictor_beta_does_not_matter() -> None:
    x, centers, targets = random_features(0, 3), [random_features(1, 4)], [torch.tensor([0, 1, 2])]
    losses = [
        float(coke_loss(x, None, centers, targets, temperature=0.1, beta=beta))
        for beta in (0.0, 0.5, 1.0)
    ]
    alone = float(discrimination_loss(x, centers[0], targets[0], 0.1))
    assert losses == pytest.approx([alone] * 3)


def test_heads_may_mix_hard_and_soft_targets() -> None:
    x = random_features(0, 3)
    centers = [random_features(1, 4), random_features(2, 2)]
    labels = torch.tensor([0, 3, 1])
    soft = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    loss = coke_loss(x, None, centers, [labels, soft], temperature=0.1)
    halves = [
        discrimination_loss(x, c, t, 0.1) for c, t in zip(centers, [labels, soft], strict=True)
    ]
    torch.testing.assert_close(loss, (halves[0] + halves[1]) / 2)


def test_gradient_flows_to_features_only() -> None:
    """d loss / d x = (softmax - onehot) @ centers / temperature; frozen centers need none."""
    x, centers = random_features(0, 4).requires_grad_(), random_features(1, 3)
    labels = torch.tensor([0, 1, 2, 0])
    coke_loss(x, None, [centers], [labels], temperature=0.3).backward()
    assert x.grad is not None and centers.grad is None
    with torch.no_grad():
        wrong = F.softmax(x @ centers.T / 0.3, 1) - F.one_hot(labels, 3)
        torch.testing.assert_close(x.grad, wrong @ centers / 0.3 / 4)
