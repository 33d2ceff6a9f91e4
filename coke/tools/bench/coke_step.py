"""One training step of CoKe as ``coke train`` does it, cut into its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config import Config
from coke.model.coke_model import build_model
from coke.model.optimizer import build_optimizer
from coke.tools.bench.paper import IMAGENET_IMAGES
from coke.tools.bench.timing import StageClock
from coke.tools.train_step import forward_step

#: In the order of a step.
STEP_STAGES = ("label look-up", "forward", "backward", "optimiser", "clustering")


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
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.clustering = Clustering(
            n_ids=IMAGENET_IMAGES, dim=config.model.dim, device=device, **asdict(config.clustering)
        )
        every_id = torch.arange(IMAGENET_IMAGES, device=device)
        labels_HN = torch.stack([every_id % k for k in config.clustering.n_clusters])
        self.clustering.label_store.write(every_id, labels_HN, epoch=0)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        """One step. Returns the loss, detached.

        Args:
            views: (B, 3, S, S) each, on the device.
            ids: (B,) int64, on the device.
        """
        targets = self.clustering.targets(ids)
        self._mark("label look-up")
        features_BD, loss = forward_step(
            self.model, views, targets, self.clustering, self._config, self._precision
        )
        self._mark("forward")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._mark("backward")
        self.optimizer.step()
        self._mark("optimiser")
        self.clustering.step(features_BD, ids)
        self._mark("clustering")
        return loss.detach()

    def _mark(self, stage: str) -> None:
        if self._clock is not None:
            self._clock.mark(stage)
