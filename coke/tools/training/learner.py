"""What training moves, and the order of a step (Alg. 1 and Sec. 3.3).

A step reads its images' labels of the epoch before, trains towards them against the centers of the
epoch before, and then clusters the features anew. The order stands here and nowhere else: training
and the benchmark call :meth:`Learner.step`, the memory estimate :meth:`Learner.add_gradients`.

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from coke.clustering import Clustering
from coke.clustering.clustering import HeadReport
from coke.config.config import Config
from coke.distributed.process_group import rank, world_size
from coke.model.coke_model import CoKe, build_model, check_view_sizes
from coke.model.finite import Statistics, finite_features
from coke.model.optimizer import (
    build_optimizer,
    learning_rate,
    scaled_to_batch,
    set_learning_rate,
)
from coke.model.precision import gradient_scaler, resolve_precision, set_tensor_cores
from coke.model.replica import replicate
from coke.pipeline.loading.loader import Batch
from coke.tools.runs.initial_weights import load_initial_weights
from coke.tools.runs.weights_report import InitialWeights
from coke.tools.training.feature_sample import FeatureRows, is_sampled
from coke.tools.training.layer_randomness import seed_layers
from coke.tools.training.micro_batches import global_batch, last_piece, micro_batch_rows
from coke.tools.training.step import Gradients, add_gradients, scan_batch, train_step


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step stands in a run: it is number ``step`` (from 0) of ``steps`` in ``epoch``."""

    epoch: int
    step: int
    steps: int

    @property
    def taken(self) -> int:
        """Steps of the whole run before this one, those of the scan included."""
        return self.epoch * self.steps + self.step

    @property
    def trained_epochs(self) -> float:
        """Training epochs before this step; the scan (epoch 0) is none."""
        return self.epoch - 1 + self.step / self.steps


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of one step.

    Attributes:
        loss: () over all ranks, on the device; None for the scan.
        valid: () bool on the device: false where loss, gradients or features were not finite, in
            which case the step has moved nothing.
        ids: (b,) int64 of this rank's images, on the host.
        images: number of images of all ranks.
        lr: learning rate.
        rows: features of images of all ranks, the same on each, in the last steps of an epoch: see
            :class:`coke.tools.training.feature_sample.FeatureSample`.
    """

    loss: Tensor | None
    valid: Tensor
    ids: Tensor
    images: int
    lr: float
    rows: FeatureRows | None = None


class Learner:
    """Model, optimiser, gradient scaler, batch-norm statistics and clustering of a run.

    Args:
        model: the network whose weights are trained.
        network: what is called in training: ``model`` as the settings of the machine ask for it
            (data-parallel, compiled, channels last); ``model`` itself if None.
        n_ids: number of ids of the data set.
        n_points: number of ids that have an image.
        precision: a resolved one, see :func:`coke.model.precision.resolve_precision`.
    """

    def __init__(
        self,
        config: Config,
        model: CoKe,
        *,
        n_ids: int,
        n_points: int,
        device: torch.device,
        precision: str,
        network: nn.Module | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.precision = precision
        self.model = model.train()
        self.network = model if network is None else network
        self._schedule = scaled_to_batch(config.optimizer, config.data.batch_size)
        self.optimizer = build_optimizer(model, self._schedule)
        self.scaler = gradient_scaler(precision, device)
        self.clustering = Clustering(
            config.clustering,
            n_ids=n_ids,
            n_points=n_points,
            dim=config.model.dim,
            seed=config.seed,
            device=device,
        )
        self.statistics = Statistics(model)
        self.initial_weights: InitialWeights | None = None

    @classmethod
    def build(
        cls,
        config: Config,
        *,
        n_ids: int,
        n_points: int,
        device: torch.device,
        init_from: str | Path | None = None,
    ) -> Self:
        """A new learner of this rank.

        Args:
            init_from: weights to start from, see
                :func:`coke.tools.runs.initial_weights.load_initial_weights`.

        Raises:
            ValueError: the backbone does not take the views' sizes, or the weights do not fit.
        """
        precision = resolve_precision(config.machine.precision, device)
        set_tensor_cores(precision)
        model = build_model(config.model, config.seed)
        check_view_sizes(model, config.data.view_sizes())
        weights = None if init_from is None else load_initial_weights(model, init_from)
        network = replicate(
            model,
            device,
            channels_last=config.machine.channels_last,
            checkpoint=config.machine.checkpoint_activations,
            compile=config.machine.compile,
        )
        learner = cls(
            config,
            model,
            n_ids=n_ids,
            n_points=n_points,
            device=device,
            precision=precision,
            network=network,
        )
        learner.initial_weights = weights
        return learner

    def scan(self, batch: Batch, place: Place) -> Step:
        """A step of the initialisation scan: forward and clustering; no weight moves."""
        views, ids = self._begin(batch, place)
        features_BD = scan_batch(self.network, views, self.config, self.precision, batch.sizes)
        features_BD, ids = global_batch(features_BD, ids, batch.sizes)
        valid = finite_features(features_BD)
        self._cluster(features_BD, ids, valid)
        return Step(
            loss=None,
            valid=valid,
            ids=batch.ids,
            images=sum(batch.sizes),
            lr=0.0,
            rows=self._rows(features_BD, valid, batch, place),
        )

    def step(self, batch: Batch, place: Place) -> Step:
        """A training step of all ranks together. Nothing in it waits for the device."""
        views, ids = self._begin(batch, place)
        lr = learning_rate(self._schedule, progress=place.trained_epochs)
        set_learning_rate(self.optimizer, lr)
        features_BD, loss, valid = train_step(
            self.network,
            self.optimizer,
            views,
            self.clustering.targets(ids),
            self.clustering,
            self.config,
            self.precision,
            scaler=self.scaler,
            sizes=batch.sizes,
        )
        features_BD, ids = global_batch(features_BD, ids, batch.sizes)
        self._cluster(features_BD, ids, valid)
        return Step(
            loss=loss,
            valid=valid,
            ids=batch.ids,
            images=sum(batch.sizes),
            lr=lr,
            rows=self._rows(features_BD, valid, batch, place),
        )

    def add_gradients(self, views: list[Tensor], targets: list[Tensor]) -> Gradients:
        """The part of a step that takes the memory: forward and backward of all its pieces."""
        return add_gradients(
            self.network,
            self.optimizer,
            views,
            targets,
            self.clustering,
            self.config,
            self.precision,
            scaler=self.scaler,
        )

    def end_epoch(self) -> list[HeadReport]:
        """Freezes centers and labels for the next epoch; reports on each head."""
        return self.clustering.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """What was learned, for a checkpoint; it shares memory with the learner.

        Parameters, clustering and label store are equal on all ranks. Randomness needs no state:
        order and views are functions of (seed, epoch, id), and layers are seeded in each step.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "clustering": self.clustering.state_dict(),
            "precision": self.precision,
        }

    def load_state_dict(self, state: dict[str, Any], run: object) -> None:
        """Takes over what the run ``run`` had learned.

        Raises:
            ValueError: the run was trained in another precision; the message names both.
        """
        if state["precision"] != self.precision:
            raise ValueError(
                f"run {run} was trained in {state['precision']}, this would go on in "
                f"{self.precision}; add --set machine.precision={state['precision']}, or use a "
                "machine like the first"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, value in kept.items():
                if value.shape == parameter.shape:
                    # Fused kernels go by address: laid out as weights are now, not as it was saved.
                    kept[name] = torch.empty_like(parameter).copy_(value)
        self.scaler.load_state_dict(state["scaler"])
        self.clustering.load_state_dict(state["clustering"])

    def _begin(self, batch: Batch, place: Place) -> tuple[list[Tensor], Tensor]:
        """Views and ids of a batch on the device; all that a bad step could move is kept."""
        seed_layers(self.config.seed, place.taken, rank())
        self.statistics.keep()
        views = [view.to(self.device, non_blocking=True) for view in batch.views]
        return views, batch.ids.to(self.device, non_blocking=True)

    def _rows(
        self, projected_BD: Tensor, valid: Tensor, batch: Batch, place: Place
    ) -> FeatureRows | None:
        """Features for the epoch's sample, if this step belongs to it.

        The backbone's are those of the last piece of the batch, one piece without ``accumulate``.
        """
        rows = micro_batch_rows(self.config.data.batch_size, self.config.optimizer.accumulate)
        if not is_sampled(place.step, place.steps, rows * world_size()):
            return None
        represented_bD = self.model.represented
        assert represented_bD is not None, "the network was called in this step"
        piece, sizes = last_piece(batch.sizes, rows)
        ids_b = batch.ids[piece].to(self.device, non_blocking=True)
        represented_BD, _ = global_batch(represented_bD.float(), ids_b, sizes)
        return FeatureRows.of(represented_BD, projected_BD, valid)

    def _cluster(self, features_BD: Tensor, ids_B: Tensor, valid: Tensor) -> None:
        """Clusters the global batch; undoes what a step that is not valid has moved."""
        self.statistics.restore_unless(valid)
        self.clustering.step(features_BD, ids_B, valid)
