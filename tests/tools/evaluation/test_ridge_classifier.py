"""The ridge classifier by hand, and against one fit for every image that is left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.tools.evaluation import ridge_classifier
from coke.tools.evaluation.ridge_classifier import PENALTIES, fit_ridge


def sample(n: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features with some of their class in them, of dimensions of very different scale."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    noise = torch.randn(n, dim, generator=generator)
    centers = torch.randn(classes, dim, generator=generator)
    return (noise + centers[labels]) * torch.logspace(-3, 3, dim) + 2, labels


def test_one_feature_by_hand() -> None:
    """Features -1, -1, 1, 3 have mean 0.5 and variance 2.75. With the penalty p the weight to a
    class is sum(x y) / (n + n p), as the standardised features have the squared norm n."""
    features = torch.tensor([[-1.0], [-1.0], [1.0], [3.0]])
    labels = torch.tensor([0, 0, 1, 1])
    fitted = fit_ridge(features, labels, 2, [0.5])
    assert fitted.mean.tolist() == [0.5]
    assert fitted.scale.item() == pytest.approx(2.75**-0.5)
    moment = (0.5 + 2.5 + 1.5 + 1.5) / 2 * 2.75**-0.5  # to class 1, whose target is +-0.5
    assert fitted.weights[0].tolist() == pytest.approx([-moment / 6, moment / 6])
    assert fitted.bias.tolist() == [0.5, 0.5] and fitted.penalty == 0.5
    middle = fitted.scores(torch.tensor([[0.5]]))
    assert middle.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("n", "dim"), [(40, 6), (12, 30)], ids=["more images", "more dimensions"])
def test_agrees_with_a_fit_for_every_image_left_out(
    n: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intercept as a column without a penalty, solved anew without each image."""
    monkeypatch.setattr(ridge_classifier, "_CHUNK", 7)
    features, labels = sample(n, dim, 3)
    penalties = (1e-3, 0.1, 3.0)
    fitted = fit_ridge(features, labels, 3, penalties)
    x = (features.double() - fitted.mean) * fitted.scale
    assert torch.allclose(x.mean(dim=0), torch.zeros(dim).double(), atol=1e-9)
    assert torch.allclose(x.square().mean(dim=0), torch.ones(dim).double())
    with_one = torch.cat([x, torch.ones(n, 1)], dim=1)
    y = F.one_hot(labels, 3).double()

    def solved(rows: Tensor, penalty: float) -> Tensor:
        a = with_one[rows]
        ridge = torch.diag(torch.tensor([n * penalty] * dim + [0.0], dtype=torch.float64))
        weights: Tensor = torch.linalg.solve(a.T @ a + ridge, a.T @ y[rows])
        return weights

    everything = torch.arange(n)
    for p, penalty in enumerate(penalties):
        errors = [
            (y[i] - with_one[i] @ solved(everything[everything != i], penalty)).square().sum()
            for i in range(n)
        ]
        assert fitted.errors[p].item() == pytest.approx(torch.stack(errors).mean().item())
    assert fitted.penalty == penalties[int(fitted.errors.argmin())]
    whole = with_one @ solved(everything, fitted.penalty)
    torch.testing.assert_close(fitted.scores(features), whole)


def test_noise_is_held_down_and_signal_is_not() -> None:
    """Labels that features say nothing of ask for a large penalty, others for a small one."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 40, generator=generator), torch.arange(60) % 2
    assert fit_ridge(features, labels, 2).penalty > 1
    features[:, 3] = labels.float()
    assert fit_ridge(features, labels, 2).penalty < 1


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_scale_of_features_does_not_matter(scale: float) -> None:
    features, labels = sample(50, 5, 4)
    features /= 1000
    plain, scaled = fit_ridge(features, labels, 4), fit_ridge(features * scale, labels, 4)
    assert scaled.penalty == plain.penalty
    torch.testing.assert_close(
        scaled.scores(features * scale), plain.scores(features), rtol=1e-4, atol=1e-4
    )


def test_constant_features_say_nothing() -> None:
    """Also where rounding makes them vary in the last digit; then all scores are class shares."""
    labels = torch.tensor([0, 0, 0, 1])
    tenth = torch.tensor(0.1)
    features = torch.stack([tenth, tenth, tenth, tenth.nextafter(torch.tensor(1.0))])[:, None]
    for flat in (features, torch.zeros(4, 2)):
        fitted = fit_ridge(flat, labels, 2)
        assert fitted.scores(flat).tolist() == [[0.75, 0.25]] * 4


def test_a_class_without_images_is_never_found() -> None:
    features, labels = sample(20, 3, 2)
    scores = fit_ridge(features, 2 * labels, 4).scores(features)
    assert scores[:, [1, 3]].isneginf().all() and scores[:, [0, 2]].isfinite().all()


def test_penalties_are_in_ascending_order_and_wide() -> None:
    assert list(PENALTIES) == sorted(PENALTIES)
    assert PENALTIES[0] == pytest.approx(1e-4) and PENALTIES[-1] == pytest.approx(100)
