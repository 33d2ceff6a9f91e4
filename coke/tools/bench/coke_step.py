"""One training step of CoKe, the one that ``coke train`` takes, cut into its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coke.clustering import Clustering
from coke.clustering.label_store import LabelStore
from coke.config import Config
from coke.model.coke_model import build_model
from coke.model.optimizer import build_optimizer
from coke.model.precision import gradient_scaler, set_tensor_cores
from coke.tools.bench.paper import IMAGENET_IMAGES
from coke.tools.bench.timing import StageClock
from coke.tools.train_step import train_step

#: In the order of a step. ``loss`` is the loss forward and back, to the network's features.
STEP_STAGES = (
    "label look-up",
    "forward",
    "loss",
    "backward",
    "optimiser",
    "clustering",
    "label write",
)


def gentle(config: Config) -> Config:
    """The same work with a learning rate that cannot make weights diverge on synthetic data."""
    return replace(config, optimizer=replace(config.optimizer, lr=1e-4))


class CokeStep:
    """Discrimination and clustering with a label store of ImageNet's size.

    Args:
        config: what to train with.
        precision: a resolved one.
        clock: is told when each stage ends; none is measured without it.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        precision: str,
        clock: StageClock | None = None,
    ) -> None:
        self._config = config
        self._precision = precision
        self._clock = clock
        model = build_model(config.model, config.seed)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.optimizer = build_optimizer(self.model, gentle(config).optimizer)
        self.clustering = Clustering(
            n_ids=IMAGENET_IMAGES, dim=config.model.dim, device=device, **asdict(config.clustering)
        )
        every_id = torch.arange(IMAGENET_IMAGES, device=device)
        labels_HN = torch.stack([every_id % k for k in config.clustering.n_clusters])
        self.clustering.epoch = 1  # as after the scan
        self.clustering.set_labels(labels_HN)
        self._scaler = gradient_scaler(precision, device)
        if clock is not None:
            _mark_stages(self.model, self.optimizer, clock)
            _mark_label_write(self.clustering.label_store, clock)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        """One step. Returns the loss, detached.

        Args:
            views: (B, 3, S, S) each, on the device.
            ids: (B,) int64, on the device.
        """
        set_tensor_cores(self._precision)  # a setting of the process, which others share
        targets = self.clustering.targets(ids)
        self._mark("label look-up")
        features_BD, loss, finite = train_step(
            self.model,
            self.optimizer,
            views,
            targets,
            self.clustering,
            self._config,
            self._precision,
            scaler=self._scaler,
        )
        self.clustering.step(features_BD, ids, where=finite)
        self._mark("label write")
        return loss

    def _mark(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.mark(stage)


def _mark_stages(model: nn.Module, optimizer: Optimizer, clock: StageClock) -> None:
    """Marks the stages inside of a step from hooks, so that the step itself is training's own."""

    def after_forward(_module: nn.Module, _inputs: Any, features: Any) -> None:
        clock.mark("forward")
        pending = ["loss"]

        def gradient_arrives(_gradient: Tensor) -> None:
            if pending:  # the first view's; the rest of the loss is a small part of a step
                clock.mark(pending.pop())

        for projected_BD, predicted_BD in features:
            last = projected_BD if predicted_BD is None else predicted_BD
            if last.requires_grad:
                last.register_hook(gradient_arrives)

    model.register_forward_hook(after_forward)
    optimizer.register_step_pre_hook(lambda *_: clock.mark("backward"))
    optimizer.register_step_post_hook(lambda *_: clock.mark("optimiser"))


def _mark_label_write(store: LabelStore, clock: StageClock) -> None:
    write = store.write

    def marked_write(ids_B: Tensor, labels_HB: Tensor, epoch: int) -> None:
        clock.mark("clustering")
        write(ids_B, labels_HB, epoch)

    store.write = marked_write  # type: ignore[method-assign]
