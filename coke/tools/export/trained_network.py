"""What is exported: the backbone of a run's checkpoint, and what a model card says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from coke.config.config import Config
from coke.model.backbone import feature_dim
from coke.tools.evaluation.representations import load_run
from coke.tools.export.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A backbone with the weights of a checkpoint.

    Attributes:
        run: the run folder.
        epoch: of the checkpoint.
        config: settings of the run.
        backbone: images (B, 3, S, S) -> features (B, ``dim``); on the CPU, in evaluation mode.
        dim: dimension of the features.
        preprocessing: what the backbone's images have gone through.
    """

    run: Path
    epoch: int
    config: Config
    backbone: nn.Module
    dim: int
    preprocessing: Preprocessing


def open_network(run: str | Path, epoch: int | None = None) -> TrainedNetwork:
    """The backbone of a run's checkpoint, the newest when ``epoch`` is None.

    Raises:
        ValueError: no such run or epoch, or the checkpoint is damaged.
    """
    config, model, epoch = load_run(run, epoch)
    backbone = model.backbone.eval().requires_grad_(False)
    return TrainedNetwork(
        run=Path(run),
        epoch=epoch,
        config=config,
        backbone=backbone,
        dim=feature_dim(backbone),
        preprocessing=Preprocessing.of(config),
    )
