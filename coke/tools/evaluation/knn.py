"""``coke eval knn``: weighted k-nearest neighbours on frozen features, as in DINO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

from rich.console import Console

from coke.tools.evaluation.accuracy import accuracy
from coke.tools.evaluation.evaluation import evaluate_run
from coke.tools.evaluation.figures import Row, accuracy_row
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.evaluation.labelled_data import labels_of
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import CachedFeatures
from coke.tools.evaluation.subject import Subject, SubjectOptions


@dataclass(frozen=True, kw_only=True)
class Knn:
    """The evaluation, see :class:`coke.tools.evaluation.evaluation.Evaluation`."""

    method: ClassVar[str] = "knn"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 < self.temperature < math.inf:
            raise ValueError(
                f"k is {self.k} and temperature {self.temperature}; both must be positive and "
                "finite"
            )

    def settings(self, subject: Subject) -> dict[str, Any]:
        return {
            "k": min(self.k, subject.splits.train.n_live),
            "temperature": self.temperature,
            "similarity": "cosine",
            "features": "backbone, after average pooling",
            "view": "center crop",
        }

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        splits, device = features.subject.splits, features.subject.device
        k, images = self.k, splits.train.n_live
        if k > images:
            console.print(f"k is {k}, but there are {images:,} training images: all of them vote")
            k = images
        train_labels, labels = labels_of(splits.train, device), labels_of(splits.test, device)
        found = {}
        for name, train_ND in features.train.items():
            scores_MC = knn_classify(
                train_ND,
                train_labels,
                features.test[name],
                n_classes=splits.n_classes,
                k=k,
                temperature=self.temperature,
            )
            trained = int(splits.trained.sum())
            hits = accuracy(scores_MC, labels, trained_classes=trained, places=k)
            found[name] = accuracy_row(hits, len(labels))
        return found


def eval_knn(
    run: str | Path,
    data: str | Path,
    *,
    k: int = 20,
    temperature: float = 0.07,
    batch_size: int = 256,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> EvalReport:
    """Classifies the test images by their k nearest training images.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        k: number of neighbours; all training images vote where there are fewer.
        temperature: each neighbour votes with exp(cosine / temperature).
        batch_size: images per forward pass.
        features: of this run and data, where they were computed before.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Raises:
        ValueError: no such run, no test data, unlabelled images, classes that differ, k out of
            range, features that are not finite, or results that cannot be kept.
    """
    return evaluate_run(
        Knn(k=k, temperature=temperature),
        run,
        data,
        batch_size=batch_size,
        features=features,
        console=console,
        **options,
    )
