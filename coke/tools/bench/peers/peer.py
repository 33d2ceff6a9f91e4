"""What the peers have in common: a network, an optimiser, and a step of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe
from coke.model.optimizer import build_optimizer
from coke.model.precision import autocast, gradient_scaler, set_tensor_cores


class Peer(ABC):
    """One method in training.

    Args:
        model: backbone and projector, in train mode and on its device.
        optimizer: settings of the optimiser.
        precision: a resolved one, see :mod:`coke.model.precision`.
        learned: modules that are trained besides the model.

    Attributes:
        n_views: views of each image that a step takes.
        model: backbone and projector; what an evaluation looks at.
        optimizer: over the model and what else the method learns.
    """

    n_views = 2

    def __init__(
        self,
        model: CoKe,
        optimizer: OptimizerConfig,
        precision: str,
        *,
        learned: Sequence[nn.Module] = (),
    ) -> None:
        self.model = model
        self.precision = precision
        self.optimizer = build_optimizer(nn.ModuleList([model, *learned]), optimizer)
        self._scaler = gradient_scaler(precision, next(model.parameters()).device)

    @abstractmethod
    def loss(self, views: Sequence[Tensor]) -> Tensor:
        """The loss of a batch, a scalar with a gradient.

        Args:
            views: ``n_views`` of (B, 3, S, S), of the same images.
        """

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        """One step: forward, backward, optimiser. Returns the loss, detached.

        Args:
            ids: (B,) int64, the images' ids; these methods do not know images apart by id.
        """
        set_tensor_cores(self.precision)
        loss = self.loss(views)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def project(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Unit-norm features (B, D) float32 per view, from one pass: batch norm sees all views."""
        with autocast(self.precision, views[0].device):
            ((projected, _),) = self.model([torch.cat(list(views))])
        assert isinstance(projected, Tensor)
        return list(projected.split([len(view) for view in views]))
