"""``coke eval knn``: weighted k-nearest neighbours on frozen features, as in DINO."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from coke.model.knn import knn_classify, topk_accuracy
from coke.model.precision import resolve_device
from coke.tools.eval_report import Accuracy, EvalReport, show_and_save
from coke.tools.representations import (
    extract,
    labels_of,
    load_run,
    open_splits,
    representations,
)


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
    console: Console | None = None,
) -> EvalReport:
    """Classifies the test images by their k nearest training images.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        k, temperature: neighbours, and lambda of their votes exp(cosine / temperature).
        epoch: whose checkpoint; the newest when None.
        baselines: also measure random initialisation and raw pixels.

    Raises:
        ValueError: no such run, no test data, unlabelled images, k out of range.
    """
    console = console or Console()
    if k < 1 or temperature <= 0:
        raise ValueError(f"k is {k} and temperature {temperature}; both must be positive")
    splits = open_splits(data, test)
    config, model, epoch = load_run(run, epoch)
    where = resolve_device(device)
    rows = representations(config, model, splits, where, batch_size, baselines)
    train = extract(splits.train, config, rows, batch_size, where, console)
    tested = extract(splits.test, config, rows, batch_size, where, console)
    train_labels, labels = labels_of(splits.train, where), labels_of(splits.test, where)
    accuracies = {}
    for name in rows:
        scores_MC = knn_classify(
            train[name],
            train_labels,
            tested[name],
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
        epoch=epoch,
        train_images=len(splits.train),
        test_images=len(splits.test),
        settings={
            "k": k,
            "temperature": temperature,
            "similarity": "cosine",
            "features": "backbone, after average pooling",
            "view": "center crop",
            "size": config.view.evaluation().size,
            "center_fraction": config.view.center_fraction,
        },
        rows=accuracies,
    )
    show_and_save(report, run, console)
    return report
