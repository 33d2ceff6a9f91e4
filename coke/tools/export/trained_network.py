"""What is exported: the weights of a run, and what a model card says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from coke.config.config import Config
from coke.model.backbone import feature_dim
from coke.tools.evaluation.representations import load_run
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.runs.classifier_file import read_classifier
from coke.tools.runs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A backbone with the weights of a checkpoint, or a fine-tuned classifier.

    Attributes:
        run: the run folder.
        epoch: of the checkpoint; for a classifier, of the one that fine-tuning started from.
        config: settings of the run.
        backbone: images (B, 3, S, S) -> features (B, ``dim``); on the CPU, in evaluation mode.
        dim: dimension of the features.
        preprocessing: what the backbone's images have gone through.
        head: features (B, ``dim``) -> scores (B, C) of a classifier; None for a backbone alone.
        classes: name of each class of the head, by label.
        tuning: what the file of a classifier says of its making.
    """

    run: Path
    epoch: int
    config: Config
    backbone: nn.Module
    dim: int
    preprocessing: Preprocessing
    head: nn.Linear | None = None
    classes: tuple[str, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)


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
        preprocessing=Preprocessing.of(config.data.view),
    )


def open_classifier(run: str | Path, file: Path) -> TrainedNetwork:
    """The classifier that ``coke eval finetune`` made from a run.

    Raises:
        ValueError: no such run or file, or the file is of a run with another network.
    """
    config, found = RunFolder(run).config(), read_classifier(file)
    if found.model != config.model:
        raise ValueError(
            f"{file} is a fine-tuned {found.model.network}, and run {run} has a "
            f"{config.model.network}, or other settings of it; name the run that it was made from"
        )
    backbone, head = found.network().requires_grad_(False)
    assert isinstance(head, nn.Linear)
    return TrainedNetwork(
        run=Path(run),
        epoch=int(found.about["epoch"]),
        config=config,
        backbone=backbone,
        dim=feature_dim(backbone),
        preprocessing=Preprocessing.of(found.view),
        head=head,
        classes=found.classes,
        tuning=found.about,
    )
