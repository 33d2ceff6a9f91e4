"""Logistic regression: its minimum, another implementation's, and the choice of the penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from coke.tools.evaluation import logistic
from coke.tools.evaluation.logistic import choose_penalty, fit_logistic


def blobs(n: int, dim: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    means = torch.randn(classes, dim, generator=generator)
    scale = torch.rand(dim, generator=generator) * 5 + 0.1
    points = (means[labels] + noise * torch.randn(n, dim, generator=generator)) * scale + 3
    return points, labels


def test_two_points_by_hand() -> None:
    """Standardised, the points are -1 and 1. By symmetry the weights are -w and w, the biases 0,
    and the objective log(1 + exp(-2 w)) + penalty w^2. Its derivative is 0 where the penalty is
    1 / (w (1 + exp(2 w))): for w = 1/2, where it is 2 / (1 + e).
    """
    penalty = 2 / (1 + np.e)
    (model,) = fit_logistic(torch.tensor([[0.0], [10.0]]), torch.tensor([0, 1]), 2, [penalty])
    assert model.weight.flatten().tolist() == pytest.approx([-0.5, 0.5], abs=1e-4)
    assert model.bias.tolist() == pytest.approx([0.0, 0.0], abs=1e-4)
    assert model.scores(torch.tensor([[10.0]])).flatten().tolist() == pytest.approx(
        [-0.5, 0.5], abs=1e-4
    )


@pytest.mark.slow
def test_scikit_learn_finds_the_same_minimum() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model", reason="compares with scikit-learn")
    points, labels = blobs(90, 6, 3, noise=2.0)
    penalties = [1.0, 0.01]
    standard = ((points - points.mean(0)) / points.std(0, correction=0)).numpy()
    for penalty, model in zip(penalties, fit_logistic(points, labels, 3, penalties), strict=True):
        other = sklearn.LogisticRegression(C=1 / (penalty * 90), tol=1e-10, max_iter=10_000)
        theirs = other.fit(standard, labels.numpy()).predict_proba(standard)
        ours = model.scores(points).softmax(dim=1).numpy()
        assert np.abs(ours - theirs).max() < 1e-3


def test_a_constant_feature_counts_for_nothing() -> None:
    points, labels = blobs(30, 3, 2, noise=1.0)
    constant = torch.cat([points, torch.full((30, 1), 7.0)], dim=1)
    (plain,), (model,) = (fit_logistic(p, labels, 2, [0.1]) for p in (points, constant))
    elsewhere = torch.cat([points, torch.full((30, 1), 1e6)], dim=1)
    assert torch.allclose(model.scores(elsewhere), plain.scores(points), atol=1e-3)


def test_noise_takes_a_strong_penalty_and_clear_classes_a_weak_one() -> None:
    folds = torch.arange(60) // 3 % 5
    clear, labels = blobs(60, 5, 3, noise=0.1)
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    penalties = [10.0, 0.1, 0.001]
    weak, strong = (choose_penalty(p, labels, folds, 3, penalties) for p in (clear, noise))
    assert (weak, strong) == (0.001, 10.0)


def test_fewer_images_than_features_have_the_minimum_of_all_features() -> None:
    """The gradient is zero there, in the coordinates of the features."""
    points, labels = blobs(12, 30, 3, noise=1.0)
    (model,) = fit_logistic(points, labels, 3, [0.1])
    standard = ((points - model.mean) * model.scale).double()
    weight, bias = model.weight.double().requires_grad_(), model.bias.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(standard @ weight.T + bias, labels)
    (loss + 0.1 / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.abs().max() < 1e-3 and bias.grad.abs().max() < 1e-3


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The penalties of the fits, in order."""
    found: list[float] = []
    plain = logistic._Fit.minimise

    def counted(self: logistic._Fit, penalty: float) -> None:
        found.append(penalty)
        plain(self, penalty)

    monkeypatch.setattr(logistic._Fit, "minimise", counted)
    return found


def test_enough_held_out_images_end_the_cross_validation(
    monkeypatch: pytest.MonkeyPatch, fits: list[float]
) -> None:
    points, labels = blobs(50, 3, 2, noise=1.0)
    choose_penalty(points, labels, torch.arange(50) % 5, 2, [1.0])
    assert len(fits) == 5
    monkeypatch.setattr(logistic, "ENOUGH_HELD_OUT", 15)
    choose_penalty(points, labels, torch.arange(50) % 5, 2, [1.0])
    assert len(fits) == 7


def test_penalties_after_two_worse_ones_are_not_fitted(fits: list[float]) -> None:
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    labels, folds = torch.arange(60) % 3, torch.arange(60) // 3 % 2
    assert choose_penalty(noise, labels, folds, 3, [100.0, 1.0, 0.1, 0.01]) == 100.0
    assert fits == [100.0, 100.0, 1.0, 1.0, 0.1, 0.1]
