"""``coke eval lowshot``: classifiers learned from a few labelled images of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.accuracy import Accuracy, accuracy
from coke.tools.evaluation.evaluation import Evaluation, evaluate
from coke.tools.evaluation.few_images import FewImages, few_images, write_lists
from coke.tools.evaluation.figures import Row, accuracy_row
from coke.tools.evaluation.finetune import FineTune
from coke.tools.evaluation.labelled_data import Splits, labels_of, live_labels
from coke.tools.evaluation.logistic import (
    ENOUGH_HELD_OUT,
    PATIENCE,
    PENALTIES,
    choose_penalty,
    fit_logistic,
)
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import CachedFeatures, cache_features
from coke.tools.evaluation.results import check_results
from coke.tools.evaluation.subject import Subject, SubjectOptions
from coke.tools.evaluation.subset import folds, only

_FOLDS = 5
#: The penalty where a class has one image, so that none can be held out.
_LONE_PENALTY = 0.1


@dataclass(frozen=True, kw_only=True)
class LowShot:
    """Frozen features; the evaluation, see :class:`coke.tools.evaluation.evaluation.Evaluation`.

    Attributes:
        images: the subsets, a classifier each; the row has their mean.
    """

    images: FewImages

    @property
    def method(self) -> str:
        return f"low-shot {self.images.name}"

    def settings(self, subject: Subject) -> dict[str, Any]:
        return {
            "subsets": [subset.record() for subset in self.images.subsets],
            "classifier": "multinomial logistic regression with an L2 penalty",
            "penalties": list(PENALTIES),
            "penalty_by": f"cross-validation in {_FOLDS} folds within the subset",
            "held_out_at_most": ENOUGH_HELD_OUT,
            "worse_penalties_at_most": PATIENCE,
            "features": "backbone in eval mode, after average pooling, standardised",
            "view": "center crop",
        }

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        splits = features.subject.splits
        found: dict[str, list[tuple[Accuracy, float]]] = {name: [] for name in features.test}
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            fits = len(found) * len(self.images.subsets)
            task = progress.add_task("logistic regression", total=fits)
            for subset in self.images.subsets:
                part = only(splits.train, subset.ids)
                for name, train_MD in features.of_some(subset.ids).items():
                    progress.update(
                        task, description=escape(f"logistic regression: {name}, {subset.name}")
                    )
                    hits = _classify(train_MD, part, subset.seed, features.test[name], splits)
                    found[name].append(hits)
                    progress.advance(task)
        rows = {}
        for name, each in found.items():
            chosen = {"penalty": ", ".join(f"{penalty:g}" for _, penalty in each)}
            rows[name] = accuracy_row([hits for hits, _ in each], splits.test.n_live, chosen)
        return rows


def eval_lowshot(
    run: str | Path,
    data: str | Path,
    *,
    fractions: Sequence[float] = (),
    ids: Sequence[Path] = (),
    seeds: int | None = None,
    finetune: bool = False,
    lr: Sequence[float] = (),
    weight_decay: Sequence[float] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    write_ids: Path | None = None,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> list[EvalReport]:
    """Learns from a fraction of the labels, and tests on all test images.

    The images are a fixed choice of as many of each class, see
    :func:`coke.tools.evaluation.subset.class_balanced`.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        fractions: shares of the training images; 1 % and 10 % if empty.
        ids: lists of images to use instead, see :func:`coke.tools.evaluation.id_lists.read_list`.
            Lists of the same number of images are one result, with their mean.
        seeds: number of choices of images, whose mean is the result; 3 when None, and 1 for
            fine-tuning.
        finetune: also fine-tune the whole network.
        lr, weight_decay, epochs, batch_size: of the fine-tuning, see
            :class:`coke.tools.evaluation.finetune.FineTune`.
        write_ids: a folder for lists of the chosen images, a file for each choice.
        features: of this run and data, where other evaluations use them too.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Returns: for each fraction a report on frozen features, and with ``finetune`` another.

    Raises:
        ValueError: as :func:`coke.tools.evaluation.evaluation.evaluate_run`; a fraction or a list
            that leaves a class without an image; a list that names other images; settings out of
            range; or trainings that all diverge.
        RunStopped: a signal asked for the end of a fine-tuning. The same call goes on.
    """
    console = console or Console()
    if not finetune and (lr or weight_decay or epochs is not None or batch_size is not None):
        raise ValueError("--lr, --weight-decay, --epochs and --batch-size are for --finetune")
    tuned = FineTune(
        run=Path(run),
        lrs=tuple(lr),
        weight_decays=tuple(weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    )
    check_results(run)
    if features is None:
        features = cache_features(run, data, console=console, **options)
    train = features.subject.splits.train
    groups = few_images(train, fractions, ids, seeds)
    if write_ids is not None:
        for path in write_lists(write_ids, train, groups):
            console.print(f"written to {escape(str(path))}", highlight=False, soft_wrap=True)
    evaluations: list[Evaluation] = []
    for group in groups:
        evaluations.append(LowShot(images=group))
        if finetune:
            few = group.subsets if ids or seeds else group.subsets[:1]
            method = f"low-shot {group.name}, fine-tuned"
            evaluations.append(replace(tuned, method=method, subsets=few))
    return [evaluate(evaluation, run, features, console) for evaluation in evaluations]


def _classify(
    train_MD: Tensor, part: ImageIndex, seed: int, test_ND: Tensor, splits: Splits
) -> tuple[Accuracy, float]:
    """Test accuracy of a classifier of a few images, and the penalty that was chosen for it."""
    labels_M, penalty = labels_of(part, train_MD.device), _LONE_PENALTY
    smallest = int(np.unique(live_labels(part), return_counts=True)[1].min())
    if smallest > 1:
        folds_M = torch.from_numpy(folds(part, min(_FOLDS, smallest), seed)).to(train_MD.device)
        penalty = choose_penalty(train_MD, labels_M, folds_M, splits.n_classes)
    (model,) = fit_logistic(train_MD, labels_M, splits.n_classes, [penalty])
    trained_C = torch.from_numpy(splits.trained).to(test_ND.device)
    scores_NC = model.scores(test_ND).masked_fill(~trained_C, -math.inf)
    labels_N = labels_of(splits.test, test_ND.device)
    return accuracy(scores_NC, labels_N, trained_classes=int(trained_C.sum())), penalty
