"""One training step of CoKe, the one that ``coke train`` takes, cut into its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coke.config.config import Config
from coke.model.loss import ViewFeatures
from coke.model.precision import set_tensor_cores
from coke.pipeline.loading.loader import Batch
from coke.tools.bench.paper import IMAGENET_IMAGES
from coke.tools.bench.timing import StageClock
from coke.tools.training.learner import Learner, Place

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
#: Of an epoch as long as ImageNet's or longer. Any step after the scan takes the same time, but the
#: last ones of an epoch also keep features to measure their rank.
_PLACE = Place(epoch=1, step=0, steps=10_000)


def gentle(config: Config) -> Config:
    """The same work with a learning rate that cannot make weights diverge on synthetic data."""
    return config.changed(optimizer={"lr": 1e-4, "lr_scaling": "none", "warmup_epochs": 0.0})


class CokeStep:
    """Steps of a :class:`Learner` with a label store of ImageNet's size.

    Args:
        config: what to train with.
        precision: a resolved one.
        clock: is told when each stage ends; no stage is measured if None.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        precision: str,
        clock: StageClock | None = None,
    ) -> None:
        self.learner = Learner.build(
            gentle(config.changed(machine={"precision": precision})),
            n_ids=IMAGENET_IMAGES,
            n_points=IMAGENET_IMAGES,
            device=device,
        )
        self._precision = precision
        clustering = self.learner.clustering
        every_id = torch.arange(IMAGENET_IMAGES, device=device)
        clustering.epoch = 1  # as after the scan
        clustering.set_labels(torch.stack([every_id % k for k in config.clustering.n_clusters]))
        if clock is not None:
            _mark_stages(self.learner, clock)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        """One step. Returns the loss, detached.

        Args:
            views: (B, 3, S, S) each, on the device.
            ids: (B,) int64, on the device.
        """
        set_tensor_cores(self._precision)  # a setting of the process, which others share
        batch = Batch(ids=ids, views=list(views), sizes=(len(ids),))
        loss = self.learner.step(batch, _PLACE).loss
        assert loss is not None
        return loss


def _mark_stages(learner: Learner, clock: StageClock) -> None:
    """Tells the clock when each stage ends. The step itself stays training's own."""
    clustering, store = learner.clustering, learner.clustering.label_store
    learner.network = _Marked(learner.network, clock)
    _mark_optimizer(learner.optimizer, clock)
    _mark(clustering, "targets", clock, after="label look-up")
    _mark(store, "write", clock, before="clustering")
    _mark(clustering, "step", clock, after="label write")


def _mark(
    owner: object, method: str, clock: StageClock, *, before: str = "", after: str = ""
) -> None:
    """Marks a stage's end before or after each call of a method of one object."""
    call: Callable[..., Any] = getattr(owner, method)

    def marked(*args: Any, **kwargs: Any) -> Any:
        if before:
            clock.mark(before)
        result = call(*args, **kwargs)
        if after:
            clock.mark(after)
        return result

    setattr(owner, method, marked)


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
