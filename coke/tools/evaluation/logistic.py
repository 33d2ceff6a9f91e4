"""Logistic regression with an L2 penalty on frozen features, for few labelled images.

Shapes: N images, D features, R axes, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.tools.evaluation.feature_axes import FeatureAxes

#: Penalties to choose from, the strongest first: each fit starts where the one before ended.
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
#: Held-out images that suffice to choose a penalty; with so many, other folds are left out. The
#: standard error of a mean cross entropy of 2,000 images is about 0.02.
ENOUGH_HELD_OUT = 2_000
#: Weaker penalties are left out once so many in a row are worse than the best: the weakest take
#: most of the time.
PATIENCE = 2
_ITERATIONS = 200  # of L-BFGS, at most


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
    axes = FeatureAxes.of(features_ND)
    fit = _Fit.start(axes.points, labels_N, axes.variances, n_classes)
    found = []
    for penalty in penalties:
        fit.minimise(penalty)
        weight_CD = fit.weight @ axes.axes.T
        found.append(
            LogisticModel(mean=axes.mean, scale=axes.scale, weight=weight_CD, bias=fit.bias)
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

    Cross-validation: each fold is held out once and scored by the classifier of the others. Folds
    are left out once :data:`ENOUGH_HELD_OUT` images are held out, and penalties after
    :data:`PATIENCE` worse ones. The cross entropy is smoother than the accuracy, which on a hundred
    images has many equals. Features are standardised once, over all folds.

    Args:
        folds_N: (N,) fold of each image, see :func:`coke.tools.evaluation.subset.folds`.
        penalties: positive, descending.
    """
    axes = FeatureAxes.of(features_ND)
    fits: list[tuple[Tensor, _Fit]] = []
    held_out = 0
    for fold in range(int(folds_N.max()) + 1):
        held_N, rest_N = folds_N == fold, folds_N != fold
        fits.append(
            (held_N, _Fit.start(axes.points[rest_N], labels_N[rest_N], axes.variances, n_classes))
        )
        held_out += int(held_N.sum())
        if held_out >= ENOUGH_HELD_OUT:
            break
    losses: list[float] = []
    for penalty in penalties:
        loss = 0.0
        for held_N, fit in fits:
            fit.minimise(penalty)
            scores_MC = axes.points[held_N] @ fit.weight.T + fit.bias
            loss += float(F.cross_entropy(scores_MC, labels_N[held_N], reduction="sum"))
        losses.append(loss)
        if len(losses) - 1 - losses.index(min(losses)) >= PATIENCE:
            break
    return penalties[losses.index(min(losses))]


@dataclass(kw_only=True)
class _Fit:
    """A classifier of some images, moved to the minimum of one penalty after another.

    Attributes:
        points: (N, R) the images; labels: (N,).
        variances: (R,) of an axis.
        weight, bias: (C, R) and (C,).
    """

    points: Tensor
    labels: Tensor
    variances: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def start(
        cls, points_NR: Tensor, labels_N: Tensor, variances_R: Tensor, n_classes: int
    ) -> _Fit:
        return cls(
            points=points_NR,
            labels=labels_N,
            variances=variances_R,
            weight=points_NR.new_zeros(n_classes, points_NR.shape[1]),
            bias=points_NR.new_zeros(n_classes),
        )

    def minimise(self, penalty: float) -> None:
        """Moves weight and bias to the minimum.

        Steps are taken in weights / ``unit``. There the curvature at zero is about 1 in each
        direction, so that far fewer steps are needed. The minimum is the same.
        """
        unit_R = (self.variances / len(self.bias) + penalty).rsqrt()
        steps_CR = (self.weight / unit_R).requires_grad_()
        bias_C = self.bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [steps_CR, bias_C],
            max_iter=_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            weight_CR = steps_CR * unit_R
            scores_NC = torch.addmm(bias_C, self.points, weight_CR.T)
            loss = F.cross_entropy(scores_NC, self.labels)
            loss = loss + penalty / 2 * weight_CR.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(objective)
        self.weight = steps_CR.detach() * unit_R
        self.bias = bias_C.detach()
