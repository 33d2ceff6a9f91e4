"""One step of training: views and targets -> features and a loss, then the optimiser.

Shapes: B batch, D feature dimension, K clusters of a head, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config import Config
from coke.model.coke_model import CoKe
from coke.model.finite import check_gradients
from coke.model.loss import coke_loss
from coke.model.precision import autocast


@torch.no_grad()
def scan_step(model: CoKe, views: Sequence[Tensor], precision: str) -> Tensor:
    """Features (B, D) of the initialisation scan: batch norm sees the data, weights do not move.

    Args:
        views: (B, 3, S, S) each, of the same images.
    """
    (images,) = views
    with autocast(precision, images.device):
        projected_BD, _ = model(images)
    assert isinstance(projected_BD, Tensor)
    return projected_BD


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
        views: (B, 3, S, S) each, of the same images.
        targets: per head, see :meth:`Clustering.targets`.

    Returns: the features (B, D) to cluster, detached, and the loss, a scalar with a gradient.
    """
    (images,) = views
    with autocast(precision, images.device):
        projected_BD, predicted_BD = model(images)
    loss = coke_loss(
        projected_BD,
        predicted_BD,
        [head.centers for head in clustering.heads],
        targets,
        temperature=config.temperature,
        beta=config.beta,
    )
    return projected_BD.detach(), loss


def train_step(
    model: CoKe,
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """One discrimination step. Returns the features (B, D) it saw and the loss, both detached.

    Raises:
        NonFiniteStep: the loss or a gradient is not finite; the weights have not moved.
    """
    features_BD, loss = forward_step(model, views, targets, clustering, config, precision)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    check_gradients(loss, model)
    optimizer.step()
    return features_BD, loss.detach()
