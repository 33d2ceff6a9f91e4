"""A classifier that is trained whole: backbone and linear head, by SGD with a cosine schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coke.model.precision import autocast, gradient_scaler
from coke.model.sgd import SGD
from coke.pipeline.loading.loader import Loader
from coke.pipeline.randomness import key_of

_HEAD, _LAYERS = 0xC1A55, 0xC1A56  # keys of the head's weights, and of what layers draw
_HEAD_STD = 0.01  # standard deviation of the head's first weights
_REFERENCE_BATCH = 256  # images per step that learning rates are stated for


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all trainings of one evaluation share.

    Attributes:
        epochs: over the images that are trained on.
        batch_size: images per step; all images where there are fewer.
        head_factor: learning rate of the head as a multiple of the backbone's.
        momentum: Nesterov's.
        seed: of the head's first weights, the order of images and the crops.
    """

    epochs: int
    batch_size: int = 256
    head_factor: float = 10.0
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs is {self.epochs} and batch_size {self.batch_size}; train at least 1 epoch "
                "with at least 2 images per step"
            )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a search looks for: one cell of the grid.

    Attributes:
        lr: learning rate of the backbone at batch size 256; multiplied by the batch size / 256.
        weight_decay: of weights with two dimensions or more; biases and norms are never decayed.
    """

    lr: float
    weight_decay: float

    def __str__(self) -> str:
        return f"learning rate {self.lr:g}, weight decay {self.weight_decay:g}"


class Classifier(nn.Module):
    """Images (B, 3, S, S) -> class scores (B, C): a backbone and a linear head on its features."""

    def __init__(self, backbone: nn.Module, dim: int, n_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(dim, n_classes)
        generator = torch.Generator().manual_seed(int(key_of(_HEAD, seed)) >> 1)
        nn.init.normal_(self.head.weight, std=_HEAD_STD, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        scores_BC: Tensor = self.head(self.backbone(images))
        return scores_BC


def train_classifier(
    classifier: Classifier,
    loader: Loader,
    labels_N: Tensor,
    settings: TrainingSettings,
    cell: Cell,
    *,
    device: torch.device,
    precision: str,
    on_step: Callable[[], None],
) -> bool:
    """Trains backbone and head, batch norm in train mode.

    Args:
        classifier: on ``device``; trained in place, and in evaluation mode afterwards.
        loader: random crops of the images to train on, without short batches.
        labels_N: class label (N,) int64 of each id.
        precision: a resolved one.
        on_step: called after each step.

    Returns: whether all losses were finite. Training ends with the epoch in which one was not.
    """
    optimizer = _optimizer(classifier, settings, cell)
    scaler = gradient_scaler(precision, device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    steps = settings.epochs * loader.steps_per_epoch
    classifier.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(key_of(_LAYERS, settings.seed)) >> 1)
        for epoch in range(settings.epochs):
            for step, batch in enumerate(loader.epoch(epoch), epoch * loader.steps_per_epoch):
                _set_rates(optimizer, cell.lr * loader.batch_size / _REFERENCE_BATCH, step / steps)
                images = batch.views[0].to(device, memory_format=torch.channels_last)
                targets_B = labels_N[batch.ids].to(device)
                with autocast(precision, device):
                    scores_BC = classifier(images)
                loss = F.cross_entropy(scores_BC.float(), targets_B)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                finite &= loss.detach().isfinite()
                on_step()
            if not finite:  # waits for the device, once in an epoch
                break
    classifier.eval()
    return bool(finite)


@torch.no_grad()
def scores_of(
    classifier: Classifier,
    loader: Loader,
    *,
    device: torch.device,
    precision: str,
    on_step: Callable[[], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (B,) and class scores (B, C) float32 of each batch, both on the CPU."""
    classifier.eval()
    for batch in loader.epoch(0):
        images = batch.views[0].to(device, memory_format=torch.channels_last)
        with autocast(precision, device):
            scores_BC = classifier(images)
        yield batch.ids, scores_BC.float().cpu()
        on_step()


def _optimizer(classifier: Classifier, settings: TrainingSettings, cell: Cell) -> SGD:
    groups = []
    for module, factor in ((classifier.backbone, 1.0), (classifier.head, settings.head_factor)):
        parameters = [p for p in module.parameters() if p.requires_grad]
        for decayed in (True, False):
            groups.append(
                {
                    "params": [p for p in parameters if (p.ndim > 1) is decayed],
                    "weight_decay": cell.weight_decay if decayed else 0.0,
                    "factor": factor,
                }
            )
    groups = [group for group in groups if group["params"]]
    return SGD(groups, lr=cell.lr, momentum=settings.momentum, weight_decay=0.0)


def _set_rates(optimizer: SGD, peak: float, progress: float) -> None:
    """Half a cosine from ``peak`` to 0, without warm-up."""
    rate = peak * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
