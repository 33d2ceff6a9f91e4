"""Discrimination losses: a normalised softmax against the frozen centers (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def discrimination_loss(
    features_BD: Tensor, centers_KD: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """Cross entropy of the labels against the centers of the epoch before, one head.

    Args:
        features_BD: (B, D) float32, unit norm.
        centers_KD: (K, D) float32, unit norm, no gradient.
        targets: (B,) int64 labels (Eqn. 12), or (B, K) float32 soft labels (Eqn. 14). An image
            without a label (-1), such as one that the scan left out, teaches nothing.
        temperature: lambda.

    Returns: the mean over the batch, a scalar.
    """
    logits_BK = features_BD @ centers_KD.T / temperature
    if targets.ndim == 2:
        return F.cross_entropy(logits_BK, targets)
    total = F.cross_entropy(logits_BK, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def coke_loss(
    projected_BD: Tensor,
    predicted_BD: Tensor | None,
    centers: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    temperature: float,
    beta: float = 1.0,
) -> Tensor:
    """The loss of one view, averaged over heads.

    With a predictor it is ``beta`` of the predictor's loss and ``1 - beta`` of the projector's
    (App. B.2.4); without one, the projector's.

    Args:
        projected_BD, predicted_BD: unit-norm features (B, D) after projector and predictor.
        centers: frozen centers (K, D) of each head.
        targets: per head, see :func:`discrimination_loss`.
    """
    weighted = [(projected_BD, 1.0)]
    if predicted_BD is not None:
        weighted = [(predicted_BD, beta), (projected_BD, 1 - beta)]
    terms = [
        weight * discrimination_loss(features, head_centers, head_targets, temperature)
        for features, weight in weighted
        if weight > 0
        for head_centers, head_targets in zip(centers, targets, strict=True)
    ]
    return torch.stack(terms).sum() / len(centers)
