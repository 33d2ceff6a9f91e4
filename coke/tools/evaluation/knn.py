"""``coke eval knn``: weighted k-nearest neighbours on frozen features, as in DINO."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from coke.tools.evaluation.accuracy import Accuracy, accuracy
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.evaluation.labelled_data import labels_of
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import CachedFeatures, cache_features
from coke.tools.evaluation.results import check_results, show_and_keep

_FIXED = {
    "similarity": "cosine",
    "features": "backbone, after average pooling",
    "view": "center crop",
}


def eval_knn(
    run: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    epoch: int | None = None,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 256,
    device: str = "auto",
    baselines: bool = True,
    labelled_only: bool = False,
    features: CachedFeatures | None = None,
    console: Console | None = None,
) -> EvalReport:
    """Classifies the test images by their k nearest training images.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        epoch: of the checkpoint to evaluate; the newest when None.
        k: number of neighbours; all training images vote where there are fewer.
        temperature: each neighbour votes with exp(cosine / temperature).
        baselines: also measure random initialisation and raw pixels.
        labelled_only: leave out images without a class label.
        features: of this run and data, where they were computed before.

    Raises:
        ValueError: no such run, no test data, unlabelled images, classes that differ, k out of
            range, features that are not finite, or results that cannot be kept.
    """
    console = console or Console()
    if k < 1 or not 0 < temperature < math.inf:
        raise ValueError(
            f"k is {k} and temperature {temperature}; both must be positive and finite"
        )
    check_results(run)
    if features is None:
        features = cache_features(
            run,
            data,
            test=test,
            epoch=epoch,
            batch_size=batch_size,
            device=device,
            baselines=baselines,
            labelled_only=labelled_only,
            console=console,
        )
    images = features.subject.splits.train.n_live
    if k > images:
        console.print(f"k is {k}, but there are {images:,} training images: all of them vote")
        k = images
    settings = {"k": k, "temperature": temperature, **_FIXED}
    rows = _classify(features, k, temperature)
    report = EvalReport.of("knn", run, features.subject, settings, rows)
    show_and_keep(report, run, console)
    return report


def _classify(features: CachedFeatures, k: int, temperature: float) -> dict[str, Accuracy]:
    splits, device = features.subject.splits, features.subject.device
    train_labels, labels = labels_of(splits.train, device), labels_of(splits.test, device)
    rows = {}
    for name, train_ND in features.train.items():
        scores_MC = knn_classify(
            train_ND,
            train_labels,
            features.test[name],
            n_classes=splits.n_classes,
            k=k,
            temperature=temperature,
        )
        rows[name] = accuracy(
            scores_MC, labels, trained_classes=int(splits.trained.sum()), places=k
        )
    return rows
