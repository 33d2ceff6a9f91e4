"""``coke eval knn``: weighted k-nearest neighbours on frozen features, as in DINO."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from coke.tools.evaluation.knn_classifier import knn_classify, topk_accuracy
from coke.tools.evaluation.report import Accuracy, EvalReport, show_and_save
from coke.tools.evaluation.representations import CachedFeatures, cache_features, labels_of


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
    features: CachedFeatures | None = None,
    console: Console | None = None,
) -> EvalReport:
    """Classifies the test images by their k nearest training images.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        k, temperature: neighbours, and lambda of their votes exp(cosine / temperature).
        epoch: whose checkpoint; the newest when None.
        baselines: also measure random initialisation and raw pixels.
        features: of this run and data, where they were computed before.

    Raises:
        ValueError: no such run, no test data, unlabelled images, k out of range.
    """
    console = console or Console()
    if k < 1 or temperature <= 0:
        raise ValueError(f"k is {k} and temperature {temperature}; both must be positive")
    if features is None:
        features = cache_features(
            run,
            data,
            test=test,
            epoch=epoch,
            batch_size=batch_size,
            device=device,
            baselines=baselines,
            console=console,
        )
    splits, config = features.splits, features.config
    train_labels = labels_of(splits.train, features.device)
    labels = labels_of(splits.test, features.device)
    accuracies = {}
    for name in features.train:
        scores_MC = knn_classify(
            features.train[name],
            train_labels,
            features.test[name],
            n_classes=splits.n_classes,
            k=k,
            temperature=temperature,
        )
        accuracies[name] = Accuracy(
            top1=topk_accuracy(scores_MC, labels, 1), top5=topk_accuracy(scores_MC, labels, 5)
        )
    report = EvalReport(
        method="knn",
        run=str(run),
        epoch=features.epoch,
        train_images=splits.train.n_live,
        test_images=splits.test.n_live,
        settings={
            "k": k,
            "temperature": temperature,
            "similarity": "cosine",
            "features": "backbone, after average pooling",
            "view": "center crop",
            "size": config.data.view.evaluation().size,
            "center_fraction": config.data.view.center_fraction,
        },
        rows=accuracies,
    )
    show_and_save(report, run, console)
    return report
