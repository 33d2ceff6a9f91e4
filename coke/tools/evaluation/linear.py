"""``coke eval linear``: a linear classifier on frozen features."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from coke.tools.evaluation.accuracy import Accuracy, accuracy
from coke.tools.evaluation.labelled_data import Splits, labels_of, rows_of
from coke.tools.evaluation.linear_classifier import LinearConfig, LinearProbe, fit_on_cached
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import (
    CachedFeatures,
    Representation,
    Subject,
    cache_features,
    check_finite,
    evaluation_loader,
    extract,
    open_subject,
    representations,
)
from coke.tools.evaluation.results import check_results, show_and_keep

#: The paper's protocol: 90 epochs of random crops and flips at batch 1,024. Its learning rate
#: (0.2 to 1 on raw ResNet-50 features) does not carry over to standardised ones; 0.1 does.
PROTOCOL = LinearConfig(epochs=90)
FAST = LinearConfig()
_LARGEST_LR = 1e30  # a larger one, scaled by the batch size, may overflow float32


def eval_linear(
    run: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    epoch: int | None = None,
    fast: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    baselines: bool = True,
    labelled_only: bool = False,
    features: CachedFeatures | None = None,
    console: Console | None = None,
) -> EvalReport:
    """Trains a linear classifier on the training images' features and tests it.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        fast: compute center-crop features once instead of random crops in every epoch.
        epochs, lr: training of the classifier; the method's defaults when None.
        batch_size: images per step of the classifier and per forward pass; 1,024 when None.
        epoch: of the checkpoint to evaluate; the newest when None.
        baselines: also measure random initialisation and raw pixels.
        labelled_only: leave out images without a class label.
        features: of this run and data, where they were computed before; only with ``fast``.

    Raises:
        ValueError: no such run, no test data, unlabelled images, classes that differ, settings out
            of range, features or scores that are not finite, or results that cannot be kept.
    """
    console = console or Console()
    settings = _settings(fast, epochs, lr, batch_size)
    check_results(run)
    if fast:
        if features is None:
            features = cache_features(
                run,
                data,
                test=test,
                epoch=epoch,
                batch_size=settings.batch_size,
                device=device,
                baselines=baselines,
                labelled_only=labelled_only,
                console=console,
            )
        subject, tested = features.subject, features.test
        probes = _fit_on_features(features, settings)
    else:
        subject = open_subject(
            run, data, test=test, epoch=epoch, device=device, labelled_only=labelled_only
        )
        rows = representations(subject, settings.batch_size, baselines)
        tested = _test_features(subject, rows, settings.batch_size, console)
        probes = _fit_on_crops(subject, rows, settings, console)
    found = {n: _accuracy(probe.scores(tested[n]), subject.splits) for n, probe in probes.items()}
    method = "linear (fast)" if fast else "linear"
    report = EvalReport.of(method, run, subject, _about(settings, fast, subject), found)
    show_and_keep(report, run, console)
    return report


def _about(settings: LinearConfig, fast: bool, subject: Subject) -> dict[str, Any]:
    """The settings that a record of the result has."""
    return {
        **asdict(settings),
        "optimizer": "SGD, cosine to 0; lr is at batch 256",
        "features": "backbone in eval mode, after average pooling, standardised",
        "view": "center crop, cached" if fast else "random crop and flip",
        "scale": subject.config.data.view.scale,
    }


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


def _test_features(
    subject: Subject, rows: dict[str, Representation], batch_size: int, console: Console
) -> dict[str, Tensor]:
    test = subject.splits.test
    return extract(test, subject.config, rows, batch_size, subject.device, console)


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
    probes: dict[str, LinearProbe] = {}
    steps = loader.steps_per_epoch * settings.epochs
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("linear classifier", total=steps)
        done = 0
        for epoch in range(settings.epochs):
            for batch in loader.epoch(epoch):
                images = batch.views[0].to(device)
                labels_B = labels[rows_of(splits.train, batch.ids).to(device)]
                for name, represent in rows.items():
                    features_BD = represent(images).float()
                    check_finite(features_BD, name)
                    if name not in probes:
                        dim = features_BD.shape[1]
                        probes[name] = LinearProbe(dim, splits.n_classes, settings, device)
                    if len(labels_B) > 1:  # a last batch of one image has no statistics
                        probes[name].step(features_BD, labels_B, done / steps)
                done += 1
                progress.advance(task)
    return probes
