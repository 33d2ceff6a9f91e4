"""Logistic regression with an L2 penalty on frozen features, for few labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Penalties to choose from, the strongest first: each fit starts where the one before ended.
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
#: Held-out images that suffice to choose a penalty; with so many, other folds are left out.
ENOUGH_HELD_OUT = 10_000
_ITERATIONS = 200  # of L-BFGS, at most
_TINY = 1e-6  # features with a smaller standard deviation, relative to the largest, are constant


@dataclass(frozen=True, kw_only=True)
class LogisticModel:
    """A fitted classifier.

    Attributes:
        mean, scale: (D,) what standardises a feature: (x - mean) * scale.
        weight, bias: (C, D) and (C,), of the standardised features.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, features_ND: Tensor) -> Tensor:
        """Class scores (N, C)."""
        return (features_ND - self.mean) * self.scale @ self.weight.T + self.bias


def fit_logistic(
    features_ND: Tensor, labels_N: Tensor, n_classes: int, penalties: Sequence[float]
) -> list[LogisticModel]:
    """Multinomial logistic regression, once for each penalty.

    Minimises the mean cross entropy + penalty / 2 * (squared norm of the weights), biases free, on
    features that are standardised by their own mean and standard deviation. The objective is
    convex: the start decides nothing but the time.

    Args:
        features_ND: (N, D) float32 of the training images.
        labels_N: (N,) int64.
        penalties: positive; descending ones are fitted fastest.
    """
    mean_D = features_ND.mean(dim=0)
    std_D = features_ND.std(dim=0, correction=0)
    constant_D = std_D <= _TINY * std_D.max()
    scale_D = torch.where(constant_D, 0.0, 1 / torch.where(constant_D, 1.0, std_D))
    standard_ND = (features_ND - mean_D) * scale_D
    weight_CD = features_ND.new_zeros(n_classes, features_ND.shape[1])
    bias_C = features_ND.new_zeros(n_classes)
    found = []
    for penalty in penalties:
        _minimise(standard_ND, labels_N, weight_CD, bias_C, penalty)
        found.append(
            LogisticModel(mean=mean_D, scale=scale_D, weight=weight_CD.clone(), bias=bias_C.clone())
        )
    return found


def choose_penalty(
    features_ND: Tensor,
    labels_N: Tensor,
    folds_N: Tensor,
    n_classes: int,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """The penalty with the lowest mean cross entropy on images that were not fitted.

    Cross-validation: each fold is held out once and scored by the classifiers of the others. Folds
    are left out once :data:`ENOUGH_HELD_OUT` images were scored. The cross entropy is smoother than
    the accuracy, which on a hundred images has many equals.

    Args:
        folds_N: (N,) fold of each image, see :func:`coke.tools.evaluation.subset.folds`.
    """
    losses = features_ND.new_zeros(len(penalties), dtype=torch.float64)
    held_out = 0
    for fold in range(int(folds_N.max()) + 1):
        held_N = folds_N == fold
        rest_N = ~held_N
        fitted = fit_logistic(features_ND[rest_N], labels_N[rest_N], n_classes, penalties)
        for i, model in enumerate(fitted):
            scores = model.scores(features_ND[held_N])
            losses[i] += F.cross_entropy(scores, labels_N[held_N], reduction="sum").double()
        held_out += int(held_N.sum())
        if held_out >= ENOUGH_HELD_OUT:
            break
    return penalties[int(losses.argmin())]


def _minimise(
    standard_ND: Tensor, labels_N: Tensor, weight_CD: Tensor, bias_C: Tensor, penalty: float
) -> None:
    """Moves weight and bias to the minimum, in place."""
    parameters = [weight_CD.requires_grad_(), bias_C.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        scores_NC = standard_ND @ weight_CD.T + bias_C
        loss = F.cross_entropy(scores_NC, labels_N) + penalty / 2 * weight_CD.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
