"""One step of training: views and targets -> features and a loss, then the optimiser.

Shapes: B batch, D feature dimension, K clusters of a head, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config import Config
from coke.model.coke_model import CoKe
from coke.model.loss import ViewFeatures, coke_loss, multi_crop_loss, two_view_loss
from coke.model.precision import autocast


@torch.no_grad()
def scan_step(model: CoKe, views: Sequence[Tensor], precision: str) -> Tensor:
    """Features (B, D) of the initialisation scan: batch norm sees the data, weights do not move.

    Args:
        views: one or two large views (B, 3, S, S) of the same images.
    """
    with autocast(precision, views[0].device):
        features: list[ViewFeatures] = model(views)
    return clustered_features(features)


def forward_step(
    model: CoKe,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """The discrimination loss of a batch.

    Args:
        views: (B, 3, S, S) each, of the same images: ``config.views`` large ones, then the small.
        targets: per head, see :meth:`Clustering.targets`.

    Returns: the features (B, D) to cluster, detached, and the loss, a scalar with a gradient.
    """
    large, small = views[: config.views], views[config.views :]
    # Small views are draws of one recipe: one pass over all of them is what keeps a device busy.
    stacked = [torch.cat(list(small))] if small else []
    with autocast(precision, large[0].device):
        features: list[ViewFeatures] = model([*large, *stacked])
    features_BD = clustered_features(features[: config.views])
    centers = [head.centers for head in clustering.heads]
    if config.views == 1:
        loss = coke_loss(
            *features[0], centers, targets, temperature=config.temperature, beta=config.beta
        )
        return features_BD, loss
    mixture: dict[str, Any] = {
        "temperature": config.temperature,
        "reference_temperature": config.reference_temperature or None,
        "alpha": config.alpha_at(clustering.epoch),
        "beta": config.beta,
    }
    if small:
        apart = _unstacked(features[-1], len(small))
        loss = multi_crop_loss(features[:2], apart, centers, targets, **mixture)
    else:
        loss = two_view_loss(features, centers, targets, **mixture)
    return features_BD, loss


def clustered_features(large: Sequence[ViewFeatures]) -> Tensor:
    """What is clustered: the mean (B, D) of the large views' projected features, detached.

    The mean is not scaled back to unit norm: assigning it is the same as adding up the views'
    similarities, so that all views share one label (Eqn. 15).
    """
    projected = [projected_BD.detach() for projected_BD, _ in large]
    return projected[0] if len(projected) == 1 else torch.stack(projected).mean(dim=0)


def _unstacked(features: ViewFeatures, count: int) -> list[ViewFeatures]:
    projected, predicted = features
    if predicted is None:
        return [(projected_BD, None) for projected_BD in projected.chunk(count)]
    return [*zip(projected.chunk(count), predicted.chunk(count), strict=True)]


def train_step(
    model: CoKe,
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """One discrimination step. Returns the features (B, D) it saw and the loss, both detached."""
    features_BD, loss = forward_step(model, views, targets, clustering, config, precision)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return features_BD, loss.detach()
