"""The arithmetic of a step: from views and targets to features and a loss, then the optimiser.

Shapes: B batch, D feature dimension, K clusters of a head, S side of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coke.clustering import Clustering
from coke.config.config import Config
from coke.distributed.process_group import sum_over_ranks, world_size
from coke.model.clipping import clip_gradients
from coke.model.finite import finite_gradients
from coke.model.instance_loss import instance_loss
from coke.model.loss import ViewFeatures, views_loss
from coke.model.optimizer import step_if
from coke.model.precision import autocast
from coke.model.replica import without_averaging
from coke.tools.training.micro_batches import micro_batch_rows, micro_batches, weight_of


@torch.no_grad()
def scan_step(model: nn.Module, views: Sequence[Tensor], precision: str) -> Tensor:
    """Features (B, D) of the initialisation scan: batch norm adapts, weights do not move.

    Args:
        views: the large views (B, 3, S, S) of the same images.
    """
    with autocast(precision, views[0].device):
        features: list[ViewFeatures] = model(views)
    return clustered_features(features)


def scan_batch(
    model: nn.Module,
    views: Sequence[Tensor],
    config: Config,
    precision: str,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """:func:`scan_step` in the pieces that :func:`train_step` takes; features (B, D)."""
    rows = micro_batch_rows(config.data.batch_size, config.optimizer.accumulate)
    pieces = micro_batches(views, [], rows=rows, sizes=sizes)
    return torch.cat([scan_step(model, piece, precision) for piece, _ in pieces])


def forward_step(
    model: nn.Module,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """The discrimination loss of a batch.

    Args:
        views: (B, 3, S, S) each, of the same images: first ``config.data.views`` large ones, then
            the small ones.
        targets: per head, see :meth:`Clustering.targets`; not used if ``labels_from`` is
            ``"current"``.

    Returns: the features (B, D) to cluster, detached, and the loss, a scalar with a gradient.
    """
    assert len(views) == config.data.views + config.data.small_views
    large, small = views[: config.data.views], views[config.data.views :]
    # Small views are draws of one recipe and go through the network as one batch.
    stacked = [torch.cat(list(small))] if small else []
    with autocast(precision, large[0].device):
        features: list[ViewFeatures] = model([*large, *stacked])
    features_BD = clustered_features(features[: config.data.views])
    centers = clustering.loss_centers()
    if clustering.config.labels_from == "current":
        targets = clustering.current_targets(features_BD)
    loss = views_loss(
        features[: config.data.views],
        centers,
        targets,
        temperature=config.loss.temperature,
        reference_temperature=config.loss.reference_temperature or None,
        alpha=config.loss.alpha_at(clustering.epoch, config.optimizer.first_epochs),
        beta=config.loss.beta,
        small=_unstacked(features[-1], len(small)) if small else (),
    )
    if config.loss.instance and len(large) > 1:
        projected = [projected_BD for projected_BD, _ in features[: len(large)]]
        alone = instance_loss(projected, config.loss.instance_temperature)
        loss = (1 - config.loss.instance) * loss + config.loss.instance * alone
    return features_BD, loss


def clustered_features(large: Sequence[ViewFeatures]) -> Tensor:
    """The features to cluster: the mean (B, D) of the large views' projected features, detached.

    All views of an image share one label (Eqn. 15). The similarity of the mean to a center is the
    mean of the views' similarities, so the mean is not scaled back to unit norm.
    """
    projected = [projected_BD.detach() for projected_BD, _ in large]
    return projected[0] if len(projected) == 1 else torch.stack(projected).mean(dim=0)


def _unstacked(features: ViewFeatures, count: int) -> list[ViewFeatures]:
    projected, predicted = features
    if predicted is None:
        return [(projected_BD, None) for projected_BD in projected.tensor_split(count)]
    return [*zip(projected.tensor_split(count), predicted.tensor_split(count), strict=True)]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """What forward and backward of this rank's images left, beside the gradients themselves.

    Attributes:
        features: (b, D) to cluster, detached.
        loss_2: (2,) the sum of the images' losses, and the number of labelled images.
    """

    features: Tensor
    loss_2: Tensor


def add_gradients(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
    *,
    scaler: torch.amp.GradScaler,
    sizes: Sequence[int] | None = None,
) -> Gradients:
    """Forward and backward, in ``config.optimizer.accumulate`` pieces one after the other.

    Gradients are averaged over ranks in the last piece. A piece counts with the number of labelled
    images it holds, relative to a full batch of this rank.

    Args, Raises: as of :func:`train_step`.
    """
    rows = micro_batch_rows(config.data.batch_size, config.optimizer.accumulate)
    pieces = list(micro_batches(views, targets, rows=rows, sizes=sizes))
    full = config.data.batch_size / world_size()  # images of a rank in a full batch
    optimizer.zero_grad(set_to_none=True)
    features, losses, weights = [], [], []
    for number, (piece, labels) in enumerate(pieces, start=1):
        with without_averaging(network) if number < len(pieces) else nullcontext():
            features_BD, loss = forward_step(network, piece, labels, clustering, config, precision)
            weight = weight_of(labels)
            scaler.scale(loss * (weight / full)).backward()
        features.append(features_BD)
        weights.append(weight)
        losses.append(loss.detach() * weight if len(features_BD) else torch.zeros_like(weight))
        del loss  # and with it the piece's graph, before the next one is built
    loss_2 = torch.stack([torch.stack(losses).sum(), torch.stack(weights).sum()])
    return Gradients(features=torch.cat(features), loss_2=loss_2)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    targets: Sequence[Tensor],
    clustering: Clustering,
    config: Config,
    precision: str,
    *,
    scaler: torch.amp.GradScaler | None = None,
    sizes: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One discrimination step, by all ranks together.

    The gradient is that of the mean loss over the labelled images of the global batch, however
    ranks and pieces share them. If the loss or a gradient is not finite, no weight moves. Nothing
    here waits for the device; of the layers, torch's ``SyncBatchNorm`` of several GPUs does.

    Args:
        network: as :func:`coke.model.replica.replicate` returns it.
        optimizer: of :func:`coke.model.optimizer.build_optimizer`.
        views, targets: of this rank's images.
        scaler: of float16's gradients.
        sizes: images of each rank in this batch; needed if ranks may differ.

    Returns: this rank's features (b, D) and the loss over all ranks, both detached; and whether the
        step counts, a bool scalar, the same on all ranks. Float16's gradients overflow while the
        scaler looks for its scale. Such a step counts: the scaler leaves the overflowed gradients
        out. It no longer counts if the scale is below 1: then the gradients are not finite
        themselves.
    """
    scaler = scaler or torch.amp.GradScaler(views[0].device.type, enabled=False)
    found = add_gradients(
        network,
        optimizer,
        views,
        targets,
        clustering,
        config,
        precision,
        scaler=scaler,
        sizes=sizes,
    )
    total = sum_over_ranks(found.loss_2)
    labelled = total[1].clamp(min=1)
    loss = total[0] / labelled
    grads = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    to_labelled = config.data.batch_size / labelled  # 1 if the batch is full
    if grads:  # a loss that is not finite makes all gradients so: nothing else stops the scaler
        torch._foreach_mul_(grads, torch.where(torch.isfinite(loss), to_labelled, torch.nan))
    scale = scaler.scale(torch.ones_like(loss)) if scaler.is_enabled() else None
    if config.optimizer.clip_norm:
        clip_gradients(grads, config.optimizer.clip_norm, scale)
    if scale is None:
        finite = finite_gradients(loss, grads)
        step_if(finite, optimizer)
    else:
        finite = _scaled_step(optimizer, scaler, scale, loss, grads)
    return found.features, loss, finite


def _scaled_step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    scale: Tensor,
    loss: Tensor,
    grads: list[Tensor],
) -> Tensor:
    """A step with float16's gradients. Returns whether it counts, see :func:`train_step`."""
    loss_is_finite = torch.isfinite(loss)
    counts = loss_is_finite & ((scale >= 1) | finite_gradients(loss, grads))
    scaler.step(optimizer)
    scaler.update()
    # A loss that is not finite says nothing about the scale.
    scaler.update(torch.where(loss_is_finite, scaler.scale(torch.ones_like(loss)), scale))
    return counts
