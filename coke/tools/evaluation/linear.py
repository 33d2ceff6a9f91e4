"""``coke eval linear``: a linear classifier on frozen features."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from coke.tools.evaluation.accuracy import Accuracy, accuracy
from coke.tools.evaluation.evaluation import evaluate_run
from coke.tools.evaluation.figures import Row, accuracy_row
from coke.tools.evaluation.labelled_data import Splits, labels_of, rows_of
from coke.tools.evaluation.linear_classifier import LinearConfig, LinearProbe, fit_on_cached
from coke.tools.evaluation.one_ahead import one_ahead
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import (
    CachedFeatures,
    Representation,
    check_finite,
    evaluation_loader,
    features_of,
)
from coke.tools.evaluation.subject import Subject, SubjectOptions

#: The paper's protocol: 90 epochs of random crops and flips at batch 1,024. Its learning rate
#: (0.2 to 1 on raw ResNet-50 features) does not carry over to standardised ones; 0.1 does.
PROTOCOL = LinearConfig(epochs=90)
FAST = LinearConfig()
_LARGEST_LR = 1e30  # a larger one, scaled by the batch size, may overflow float32


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The evaluation, see :class:`coke.tools.evaluation.evaluation.Evaluation`.

    Attributes:
        fast: learn from one center crop per image, not from random crops.
        training: settings of the classifier.
    """

    fast: bool = False
    training: LinearConfig = field(default_factory=lambda: PROTOCOL)

    @property
    def method(self) -> str:
        return "linear (fast)" if self.fast else "linear"

    def settings(self, subject: Subject) -> dict[str, Any]:
        return {
            **asdict(self.training),
            "optimizer": "SGD, cosine to 0; lr is at batch 256",
            "features": "backbone in eval mode, after average pooling, standardised",
            "view": "center crop, cached" if self.fast else "random crop and flip",
            "scale": subject.config.data.view.scale,
        }

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        subject = features.subject
        if self.fast:
            probes = _fit_on_features(features, self.training)
        else:
            probes = _fit_on_crops(subject, features.representations, self.training, console)
        found = {}
        for name, probe in probes.items():
            hits = _accuracy(probe.scores(features.test[name]), subject.splits)
            found[name] = accuracy_row(hits, subject.splits.test.n_live)
        return found


def eval_linear(
    run: str | Path,
    data: str | Path,
    *,
    fast: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> EvalReport:
    """Trains a linear classifier on the training images' features and tests it.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        fast: compute center-crop features once instead of random crops in every epoch.
        epochs, lr: training of the classifier; the method's defaults when None.
        batch_size: images per step of the classifier and per forward pass; 1,024 when None.
        features: of this run and data, where other evaluations use them too.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Raises:
        ValueError: no such run, no test data, unlabelled images, classes that differ, settings out
            of range, features or scores that are not finite, or results that cannot be kept.
    """
    settings = _settings(fast, epochs, lr, batch_size)
    return evaluate_run(
        Linear(fast=fast, training=settings),
        run,
        data,
        batch_size=settings.batch_size,
        features=features,
        console=console,
        **options,
    )


def _settings(
    fast: bool, epochs: int | None, lr: float | None, batch_size: int | None
) -> LinearConfig:
    """The method's settings with those that were given. Raises ValueError out of range."""
    settings = FAST if fast else PROTOCOL
    settings = replace(
        settings,
        epochs=settings.epochs if epochs is None else epochs,
        lr=settings.lr if lr is None else lr,
        batch_size=settings.batch_size if batch_size is None else batch_size,
    )
    if settings.epochs < 1 or not 0 < settings.lr < _LARGEST_LR or settings.batch_size < 2:
        raise ValueError(
            f"epochs is {settings.epochs}, lr {settings.lr}, batch_size {settings.batch_size}; "
            f"the first two must be positive, lr below {_LARGEST_LR}, batch_size at least 2"
        )
    return settings


def _accuracy(scores_MC: Tensor, splits: Splits) -> Accuracy:
    """Accuracy of a classifier. Classes without training images have no score."""
    if not scores_MC.isfinite().all():
        raise ValueError("the classifier diverged: its scores are NaN or infinite; lower --lr")
    trained_C = torch.from_numpy(splits.trained).to(scores_MC.device)
    return accuracy(
        scores_MC.masked_fill(~trained_C, -math.inf),
        labels_of(splits.test, scores_MC.device),
        trained_classes=int(trained_C.sum()),
    )


def _fit_on_features(features: CachedFeatures, settings: LinearConfig) -> dict[str, LinearProbe]:
    splits = features.subject.splits
    labels = labels_of(splits.train, features.subject.device)
    return {
        name: fit_on_cached(train_ND, labels, splits.n_classes, settings)
        for name, train_ND in features.train.items()
    }


def _fit_on_crops(
    subject: Subject, rows: dict[str, Representation], settings: LinearConfig, console: Console
) -> dict[str, LinearProbe]:
    """The paper's protocol: new random crops in every epoch, the same for all representations."""
    splits, config, device = subject.splits, subject.config, subject.device
    loader = evaluation_loader(
        splits.train,
        config,
        config.data.view.crop_and_flip(),
        settings.batch_size,
        device,
        shuffle=True,
    )
    labels = labels_of(splits.train, device)
    represent = partial(features_of, rows=rows, device=device)
    probes: dict[str, LinearProbe] = {}
    steps = loader.steps_per_epoch * settings.epochs
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("linear classifier", total=steps)
        done = 0
        for epoch in range(settings.epochs):
            for batch, features in one_ahead(represent, loader.epoch(epoch)):
                labels_B = labels[rows_of(splits.train, batch.ids).to(device)]
                for name, features_BD in features.items():
                    check_finite(features_BD, name)
                    if name not in probes:
                        dim = features_BD.shape[1]
                        probes[name] = LinearProbe(dim, splits.n_classes, settings, device)
                    if len(labels_B) > 1:  # a last batch of one image has no statistics
                        probes[name].step(features_BD, labels_B, done / steps)
                done += 1
                progress.advance(task)
    return probes
