"""``coke eval linear``: a linear classifier on frozen features."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from coke.config.config import Config
from coke.model.precision import resolve_device
from coke.tools.evaluation.knn_classifier import topk_accuracy
from coke.tools.evaluation.linear_classifier import LinearConfig, LinearProbe, fit_on_cached
from coke.tools.evaluation.report import Accuracy, EvalReport, show_and_save
from coke.tools.evaluation.representations import (
    CachedFeatures,
    Representation,
    Splits,
    cache_features,
    evaluation_loader,
    extract,
    labels_of,
    load_run,
    open_splits,
    representations,
    rows_of,
)

#: The paper's protocol: 90 epochs of random crops and flips at batch 1,024. Its learning rate
#: (0.2 to 1 on raw ResNet-50 features) does not carry over to standardised ones; 0.1 does.
PROTOCOL = LinearConfig(epochs=90)
FAST = LinearConfig()


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
    features: CachedFeatures | None = None,
    console: Console | None = None,
) -> EvalReport:
    """Trains a linear classifier on the training images' features and tests it.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        fast: compute center-crop features once instead of random crops in every epoch.
        epochs, lr: of the classifier; the method's defaults when None.
        batch_size: of the classifier, and images per forward pass; 1,024 when None.
        epoch: whose checkpoint; the newest when None.
        baselines: also measure random initialisation and raw pixels.
        features: of this run and data, where they were computed before; only with ``fast``.

    Raises:
        ValueError: no such run, no test data, unlabelled images, settings out of range.
    """
    console = console or Console()
    settings = FAST if fast else PROTOCOL
    settings = replace(
        settings,
        epochs=settings.epochs if epochs is None else epochs,
        lr=settings.lr if lr is None else lr,
        batch_size=settings.batch_size if batch_size is None else batch_size,
    )
    if settings.epochs < 1 or settings.lr <= 0 or settings.batch_size < 2:
        raise ValueError(
            f"epochs is {settings.epochs}, lr {settings.lr}, batch_size {settings.batch_size}; "
            "the first two must be positive, the last at least 2"
        )
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
                console=console,
            )
        splits, config, where = features.splits, features.config, features.device
        epoch, tested = features.epoch, features.test
        labels = labels_of(splits.train, where)
        probes = {
            name: fit_on_cached(cached, labels, splits.n_classes, settings)
            for name, cached in features.train.items()
        }
    else:
        splits = open_splits(data, test)
        config, model, epoch = load_run(run, epoch)
        where = resolve_device(device)
        rows = representations(config, model, splits, where, settings.batch_size, baselines)
        probes = _fit_on_crops(splits, config, rows, settings, where, console)
        tested = extract(splits.test, config, rows, settings.batch_size, where, console)
    report = EvalReport(
        method="linear (fast)" if fast else "linear",
        run=str(run),
        epoch=epoch,
        train_images=splits.train.n_live,
        test_images=splits.test.n_live,
        settings={
            **asdict(settings),
            "optimizer": "SGD, cosine to 0; lr is at batch 256",
            "features": "backbone in eval mode, after average pooling, standardised",
            "view": "center crop, cached" if fast else "random crop and flip",
            "size": config.data.view.evaluation().size,
            "scale": config.data.view.scale,
            "center_fraction": config.data.view.center_fraction,
        },
        rows={
            name: _accuracy(probe, tested[name], labels_of(splits.test, where))
            for name, probe in probes.items()
        },
    )
    show_and_save(report, run, console)
    return report


def _accuracy(probe: LinearProbe, features_MD: Tensor, labels_M: Tensor) -> Accuracy:
    scores_MC = probe.scores(features_MD)
    return Accuracy(
        top1=topk_accuracy(scores_MC, labels_M, 1), top5=topk_accuracy(scores_MC, labels_M, 5)
    )


def _fit_on_crops(
    splits: Splits,
    config: Config,
    rows: dict[str, Representation],
    settings: LinearConfig,
    device: torch.device,
    console: Console,
) -> dict[str, LinearProbe]:
    """The paper's protocol: every epoch sees new random crops, all representations the same."""
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
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("linear classifier", total=steps)
        done = 0
        for epoch in range(settings.epochs):
            for batch in loader.epoch(epoch):
                images = batch.views[0].to(device)
                labels_B = labels[rows_of(splits.train, batch.ids).to(device)]
                for name, represent in rows.items():
                    features_BD = represent(images).float()
                    if name not in probes:
                        dim = features_BD.shape[1]
                        probes[name] = LinearProbe(dim, splits.n_classes, settings, device)
                    if len(labels_B) > 1:  # a last batch of one image has no statistics
                        probes[name].step(features_BD, labels_B, done / steps)
                done += 1
                progress.advance(task)
    return probes
