"""``coke eval clusters``: clusters of images, which saw no label, against their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from coke.clustering.estimator import OnlineConstrainedKMeans
from coke.tools.evaluation.cluster_scores import check_scikit_learn, cluster_scores
from coke.tools.evaluation.evaluation import evaluate_run
from coke.tools.evaluation.figures import Figure, Row
from coke.tools.evaluation.labelled_data import live_labels
from coke.tools.evaluation.own_labels import own_labels, source_of
from coke.tools.evaluation.report import OF_TRAIN, EvalReport
from coke.tools.evaluation.representations import CachedFeatures
from coke.tools.evaluation.subject import Subject, SubjectOptions

COMMAND = "coke eval clusters"
_MIN_RATIO, _SEEDS = 0.4, 3


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The evaluation, see :class:`coke.tools.evaluation.evaluation.Evaluation`.

    Attributes:
        min_ratio: smallest cluster of the k-means as a share of N / K.
        seeds: starts of the k-means; figures are means over them.
        batch_size: images per forward pass.
    """

    method: ClassVar[str] = "clusters"
    min_ratio: float = _MIN_RATIO
    seeds: int = _SEEDS
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.min_ratio <= 1:
            raise ValueError(f"--min-ratio is {self.min_ratio}; give 0 to 1")
        if self.seeds < 1:
            raise ValueError(f"--seeds is {self.seeds}; give at least 1")
        check_scikit_learn(COMMAND)

    def settings(self, subject: Subject) -> dict[str, Any]:
        index = subject.splits.train
        return {
            **OF_TRAIN,
            "k_means": "OnlineConstrainedKMeans, cosine, K = classes with an image",
            "classes": int(subject.splits.trained.sum()),
            "min_ratio": self.min_ratio,
            "seeds": list(range(self.seeds)),
            "features": "backbone, after average pooling",
            "view": "center crop",
            "own_labels": source_of(subject, index),
        }

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        subject = features.subject
        index = subject.splits.train
        classes_N = live_labels(index)
        n_classes = int(subject.splits.trained.sum())
        found = {}
        steps = len(features.train) * self.seeds
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("k-means", total=steps)
            for name, train_ND in features.train.items():
                labels = []
                for seed in range(self.seeds):
                    start = f"k-means: {name}, start {seed + 1} of {self.seeds}"
                    progress.update(task, description=escape(start))
                    labels.append((self._k_means(train_ND, n_classes, seed), n_classes))
                    progress.advance(task)
                found[name] = _row(labels, classes_N)
        for number, own in enumerate(own_labels(subject, index, self.batch_size, console), start=1):
            seen_N = own.labels >= 0
            if not seen_N.all():
                console.print(
                    f"head {number}: {int((~seen_N).sum()):,} images have no label, as training "
                    "never saw them; they are left out",
                    highlight=False,
                )
            found[f"labels of head {number}"] = _row(
                [(own.labels[seen_N], own.n_clusters)], classes_N[seen_N]
            )
        return found

    def _k_means(self, features_ND: Tensor, n_clusters: int, seed: int) -> NDArray[np.int64]:
        points_ND = features_ND.cpu().numpy()
        nowhere_N = ~points_ND.any(axis=1)
        if nowhere_N.any():  # a vector of zeros has no direction: all of them get the same one
            points_ND = points_ND.copy()
            points_ND[nowhere_N] = 1.0
        k_means = OnlineConstrainedKMeans(n_clusters, min_ratio=self.min_ratio, random_state=seed)
        return k_means.fit(points_ND).labels_


def _row(found: list[tuple[NDArray[np.int64], int]], classes_N: NDArray[np.int64]) -> Row:
    """A row of clusters and their number, one for each seed."""
    scores = [cluster_scores(labels_N, classes_N, k) for labels_N, k in found]
    figures = {name: Figure.of([score[name] for score in scores]) for name in scores[0]}
    # Their mean over seeds would be no size that any clustering has.
    ends = {"smallest": min, "largest": max}
    for name, end in ends.items():
        figures[name] = Figure(value=end(score[name] for score in scores))
    figures["clusters"] = Figure(value=scores[0]["clusters"])
    return Row(figures=figures)


def eval_clusters(
    run: str | Path,
    data: str | Path,
    *,
    min_ratio: float = _MIN_RATIO,
    seeds: int = _SEEDS,
    batch_size: int = 256,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> EvalReport:
    """Compares clusters with classes: k-means of each representation, and the run's own labels.

    Args:
        run: a run folder of ``coke train``.
        data: a data set, or a folder of splits, of which the option ``split`` names one.
        min_ratio: smallest cluster of the k-means as a share of N / K.
        seeds: starts of the k-means, whose figures are means over them.
        batch_size: images per forward pass.
        features: of this run and data, where other evaluations use them too.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Raises:
        ValueError: no such run, unlabelled images, settings out of range, features that are not
            finite, scikit-learn is missing, or results that cannot be kept.
    """
    options.setdefault("split", None)
    return evaluate_run(
        Clusters(min_ratio=min_ratio, seeds=seeds, batch_size=batch_size),
        run,
        data,
        batch_size=batch_size,
        features=features,
        console=console,
        **options,
    )
