"""Discrimination losses: a normalised softmax against the frozen centers (Sec. 3.3 and 3.4).

Shapes: B batch, D feature dimension, K clusters of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: Unit-norm features (B, D) of one view: the projector's, and the predictor's if there is one.
ViewFeatures = tuple[Tensor, Tensor | None]


def discrimination_loss(
    features_BD: Tensor,
    centers_KD: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    reference_BK: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Cross entropy of the labels against the centers of the epoch before, one head.

    With a reference, the target is ``alpha`` of the label and ``1 - alpha`` of the reference
    (Sec. 3.4, Two Views).

    Args:
        features_BD: (B, D) float32, unit norm.
        centers_KD: (K, D) float32, unit norm, no gradient.
        targets: (B,) int64 labels (Eqn. 12), or (B, K) float32 soft labels (Eqn. 14). An image
            without a label (see :func:`has_label`) does not count: the scan may have left it out.
        temperature: lambda.
        reference_BK: (B, K) float32 prediction of other views, no gradient: :func:`reference`.

    Returns: the mean over the images with a label, a scalar; 0 if no image has one.
    """
    # One log-softmax for both terms: the (B, K) work is what costs memory and time here.
    log_p_BK = F.log_softmax(features_BD @ centers_KD.T / temperature, dim=1)
    if targets.ndim == 2:
        loss_B = _cross_entropy(log_p_BK, targets)
    else:
        loss_B = F.nll_loss(log_p_BK, targets, ignore_index=-1, reduction="none")
    labelled_B = has_label(targets).to(loss_B.dtype)
    if reference_BK is not None:
        loss_B = alpha * loss_B + (1 - alpha) * _cross_entropy(log_p_BK, reference_BK)
    return (labelled_B * loss_B).sum() / labelled_B.sum().clamp(min=1)


def has_label(targets: Tensor) -> Tensor:
    """Which images have a label, (B,) bool: it is not -1, or its soft label is not all zeros."""
    return targets.sum(dim=1) > 0 if targets.ndim == 2 else targets >= 0


def _cross_entropy(log_p_BK: Tensor, targets_BK: Tensor) -> Tensor:
    return -(targets_BK * log_p_BK).sum(dim=1)


@torch.no_grad()
def reference(projected_BD: Tensor, centers: Sequence[Tensor], temperature: float) -> list[Tensor]:
    """A view's prediction: per head a distribution (B, K) over the clusters, no gradient.

    Both losses, the projector's and the predictor's, take it from projected features: the centers
    are means of projected features.
    """
    return [F.softmax(projected_BD @ centers_KD.T / temperature, dim=1) for centers_KD in centers]


def coke_loss(
    projected_BD: Tensor,
    predicted_BD: Tensor | None,
    centers: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    temperature: float,
    beta: float = 1.0,
    references: Sequence[Tensor] | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """The loss of one view, averaged over heads.

    With a predictor it is ``beta`` of the predictor's loss and ``1 - beta`` of the projector's
    (App. B.2.4); without one, the projector's.

    Args:
        projected_BD, predicted_BD: unit-norm features (B, D) after projector and predictor.
        centers: frozen centers (K, D) of each head.
        targets, references, alpha: per head, see :func:`discrimination_loss`.
    """
    weighted = [(projected_BD, 1.0)]
    if predicted_BD is not None:
        weighted = [(predicted_BD, beta), (projected_BD, 1 - beta)]
    terms = [
        weight
        * discrimination_loss(
            features,
            head_centers,
            targets[j],
            temperature,
            reference_BK=None if references is None else references[j],
            alpha=alpha,
        )
        for features, weight in weighted
        if weight > 0
        for j, head_centers in enumerate(centers)
    ]
    return torch.stack(terms).sum() / len(centers)


def views_loss(
    large: Sequence[ViewFeatures],
    centers: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    temperature: float,
    alpha: float,
    beta: float = 1.0,
    reference_temperature: float | None = None,
    small: Sequence[ViewFeatures] = (),
) -> Tensor:
    """The loss of all views of an image, which share its label.

    A large view's reference is the mean prediction of the other large views (Alg. 2 has two). One
    large view has no other, so it learns the label alone. A small view's reference is the mean
    prediction of all large views; nothing learns from what a small view predicts. With small views
    it is half the mean loss of the large ones, half that of the small ones. This is the release's
    loss: it writes ``2 alpha`` of the label and ``1 - alpha`` of two distributions' sum, and halves
    both.

    Args:
        large: features of the large views, one or more.
        centers, targets, temperature, beta: see :func:`coke_loss`; the label is that of the image.
        alpha: weight of the label; the rest is the reference.
        reference_temperature: of the references; ``temperature`` when None, as in the paper.
        small: features of the small views.
    """
    alone = len(large) == 1
    predictions = [
        reference(projected_BD, centers, reference_temperature or temperature)
        for projected_BD, _ in large
        if small or not alone  # otherwise nobody learns from them
    ]
    if alone:
        large_loss = coke_loss(*large[0], centers, targets, temperature=temperature, beta=beta)
    else:
        others = [_mean(predictions[:v] + predictions[v + 1 :]) for v in range(len(large))]
        large_loss = _mean_loss(large, others, centers, targets, temperature, beta, alpha)
    if not small:
        return large_loss
    everyone = [_mean(predictions)] * len(small)
    small_loss = _mean_loss(small, everyone, centers, targets, temperature, beta, alpha)
    return (large_loss + small_loss) / 2


def _mean(predictions: Sequence[list[Tensor]]) -> list[Tensor]:
    """The mean prediction (B, K) of some views, per head."""
    return [
        sum(of_head[1:], of_head[0]) / len(of_head) for of_head in zip(*predictions, strict=True)
    ]


def _mean_loss(
    views: Sequence[ViewFeatures],
    references: Sequence[list[Tensor]],
    centers: Sequence[Tensor],
    targets: Sequence[Tensor],
    temperature: float,
    beta: float,
    alpha: float,
) -> Tensor:
    """The mean over views, each with its own reference."""
    losses = [
        coke_loss(
            *view,
            centers,
            targets,
            temperature=temperature,
            beta=beta,
            references=per_head,
            alpha=alpha,
        )
        for view, per_head in zip(views, references, strict=True)
    ]
    return torch.stack(losses).mean()
