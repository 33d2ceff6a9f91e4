"""A linear classifier on frozen features: SGD with momentum and a cosine schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Settings of a linear classifier; the defaults are those of ``--fast``.

    Attributes:
        lr: learning rate at batch size 256; multiplied by ``batch_size`` / 256, as in the paper.
    """

    epochs: int = 60
    batch_size: int = 1024
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-6
    seed: int = 0


class LinearProbe:
    """One linear classifier in training.

    A batch norm without parameters standardises the features. So one learning rate serves
    backbones and baselines of any scale. The classifier stays linear.
    """

    def __init__(
        self, dim: int, n_classes: int, config: LinearConfig, device: torch.device
    ) -> None:
        # momentum None is a plain average of all batches: frozen features do not drift
        self._standardise = nn.BatchNorm1d(dim, affine=False, momentum=None, device=device)
        self._classifier = nn.Linear(dim, n_classes, device=device)
        nn.init.zeros_(self._classifier.weight)
        nn.init.zeros_(self._classifier.bias)
        self._config = config
        self._optimizer = torch.optim.SGD(
            self._classifier.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    def step(self, features_BD: Tensor, labels_B: Tensor, progress: float) -> Tensor:
        """One update; ``progress`` is the share 0..1 of the training done. Returns the loss."""
        config = self._config
        peak = config.lr * config.batch_size / 256
        self._optimizer.param_groups[0]["lr"] = peak * 0.5 * (1 + math.cos(math.pi * progress))
        loss = F.cross_entropy(self._classifier(self._standardise(features_BD)), labels_B)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def scores(self, features_BD: Tensor) -> Tensor:
        """Class scores (B, C) with the running statistics."""
        self._standardise.eval()
        scores_BC: Tensor = self._classifier(self._standardise(features_BD))
        self._standardise.train()
        return scores_BC


def fit_on_cached(
    features_ND: Tensor, labels_N: Tensor, n_classes: int, config: LinearConfig
) -> LinearProbe:
    """Trains a probe on features that were computed once."""
    probe = LinearProbe(features_ND.shape[1], n_classes, config, features_ND.device)
    generator = torch.Generator().manual_seed(config.seed)
    n, batch = len(features_ND), min(config.batch_size, len(features_ND))
    steps = max(n // batch, 1)
    for epoch in range(config.epochs):
        shuffled = torch.randperm(n, generator=generator).to(features_ND.device)
        for step in range(steps):
            rows = shuffled[step * batch : (step + 1) * batch]
            progress = (epoch * steps + step) / (config.epochs * steps)
            probe.step(features_ND[rows], labels_N[rows], progress)
    return probe
