"""One training step of CoKe, the one that ``coke train`` takes, cut into its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coke.clustering import Clustering
from coke.clustering.label_store import LabelStore
from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.model.finite import Statistics
from coke.model.loss import ViewFeatures
from coke.model.optimizer import build_optimizer
from coke.model.precision import gradient_scaler, set_tensor_cores
from coke.model.replica import replicate
from coke.tools.bench.paper import IMAGENET_IMAGES
from coke.tools.bench.timing import StageClock
from coke.tools.training.step import train_step

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


def replicated(model: CoKe, config: Config, device: torch.device) -> nn.Module:
    """What to call in training: the model as the settings of the machine ask for it."""
    return replicate(
        model,
        device,
        channels_last=config.machine.channels_last,
        checkpoint=config.machine.checkpoint_activations,
        compile=config.machine.compile,
    )


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
        self.model = build_model(config.model, config.seed).train()
        self._network = replicated(self.model, config, device)
        self.optimizer = build_optimizer(self.model, gentle(config).optimizer)
        self.clustering = Clustering(
            n_ids=IMAGENET_IMAGES, dim=config.model.dim, device=device, **asdict(config.clustering)
        )
        every_id = torch.arange(IMAGENET_IMAGES, device=device)
        labels_HN = torch.stack([every_id % k for k in config.clustering.n_clusters])
        self.clustering.epoch = 1  # as after the scan
        self.clustering.set_labels(labels_HN)
        self._statistics = Statistics(self.model)
        self._scaler = gradient_scaler(precision, device)
        if clock is not None:
            self._network = _Marked(self._network, clock)
            _mark_optimizer(self.optimizer, clock)
            _mark_label_write(self.clustering.label_store, clock)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        """One step. Returns the loss, detached.

        Args:
            views: (B, 3, S, S) each, on the device.
            ids: (B,) int64, on the device.
        """
        set_tensor_cores(self._precision)  # a setting of the process, which others share
        self._statistics.keep()
        targets = self.clustering.targets(ids)
        self._mark("label look-up")
        features_BD, loss, finite = train_step(
            self._network,
            self.optimizer,
            views,
            targets,
            self.clustering,
            self._config,
            self._precision,
            scaler=self._scaler,
        )
        self._statistics.restore(unless=finite)
        self.clustering.step(features_BD, ids, where=finite)
        self._mark("label write")
        return loss

    def _mark(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.mark(stage)


class _Marked(nn.Module):
    """Marks where forward and loss end. It stands around the network, and the step is training's
    own: a hook on a compiled network would be compiled into it."""

    def __init__(self, network: nn.Module, clock: StageClock) -> None:
        super().__init__()
        self._network = network
        self._clock = clock

    def forward(self, views: Sequence[Tensor]) -> list[ViewFeatures]:
        if self._clock.last == "loss":  # of the piece before, with ``accumulate``
            self._clock.mark("backward")
        features: list[ViewFeatures] = self._network(views)
        self._clock.mark("forward")
        pending = ["loss"]

        def gradient_arrives(_gradient: Tensor) -> None:
            if pending:  # the first view's; the rest of the loss is a small part of a step
                self._clock.mark(pending.pop())

        for projected_BD, predicted_BD in features:
            last = projected_BD if predicted_BD is None else predicted_BD
            if last.requires_grad:
                last.register_hook(gradient_arrives)
        return features


def _mark_optimizer(optimizer: Optimizer, clock: StageClock) -> None:
    optimizer.register_step_pre_hook(lambda *_: clock.mark("backward"))
    optimizer.register_step_post_hook(lambda *_: clock.mark("optimiser"))


def _mark_label_write(store: LabelStore, clock: StageClock) -> None:
    write = store.write

    def marked_write(ids_B: Tensor, labels_HB: Tensor, epoch: int) -> None:
        clock.mark("clustering")
        write(ids_B, labels_HB, epoch)

    store.write = marked_write  # type: ignore[method-assign]
