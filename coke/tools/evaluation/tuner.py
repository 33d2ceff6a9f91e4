"""Fine-tunes networks for an evaluation: a search on held-out images, then a test; keeps both."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.nn import functional as F

from coke.config.config import Config
from coke.files.lock import HeldError, LockFile
from coke.model.precision import resolve_precision, set_tensor_cores
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Loader
from coke.tools.evaluation.accuracy import Accuracy, accuracy
from coke.tools.evaluation.classifier import (
    Cell,
    Classifier,
    TrainingSettings,
    scores_of,
    train_classifier,
)
from coke.tools.evaluation.contestants import Contestant
from coke.tools.evaluation.labelled_data import labels_of, live_labels, rows_of
from coke.tools.evaluation.networks import hash_of_weights
from coke.tools.evaluation.representations import evaluation_loader
from coke.tools.evaluation.subset import live_ids
from coke.tools.evaluation.trials import Key, Trial, Trials
from coke.tools.runs.interruption import Interruption, RunStopped

SEARCH = "search.json"
_TEST_BATCH = 256
_SOON = 60  # seconds; a shorter rest is not announced


@dataclass(frozen=True, kw_only=True)
class Images:
    """What a classifier is trained on and tested on.

    Attributes:
        name: of the test images, in lines on the console.
    """

    train: ImageIndex
    test: ImageIndex
    name: str


class Tuner:
    """Trains classifiers one after another. Those that are finished are kept in a folder.

    Use :func:`tuner_in`.
    """

    def __init__(
        self,
        config: Config,
        settings: TrainingSettings,
        device: torch.device,
        trials: Trials,
        planned: int,
        progress: Progress,
        interruption: Interruption,
    ) -> None:
        self._config = config
        self._settings = settings
        self._device = device
        self._precision = resolve_precision(config.machine.precision, device)
        self._trials = trials
        self._planned, self._done = planned, 0
        self._seconds: list[float] = []  # of the trainings that were done here
        self._progress = progress
        self._all = progress.add_task("trainings", total=planned)
        self._interruption = interruption
        self._images: Images | None = None
        self._made: tuple[Loader, Loader]

    def search(
        self, contestant: Contestant, images: Images, grid: Sequence[Cell]
    ) -> dict[Cell, Trial]:
        """A training for each cell of a grid; at least one has not diverged.

        Raises:
            ValueError: every training diverged.
            RunStopped: a signal asked for the end.
        """
        found = {cell: self.trial(contestant, images, cell) for cell in grid}
        if all(trial.top1 is None for trial in found.values()):
            raise diverged(contestant, grid)
        return found

    def trial(
        self,
        contestant: Contestant,
        images: Images,
        cell: Cell,
        *,
        keep: Callable[[Classifier, Trial], None] | None = None,
        kept: bool = True,
    ) -> Trial:
        """Trains and tests a classifier, unless this was done before.

        Args:
            keep: is given the trained classifier, before the trial counts as finished.
            kept: whether what ``keep`` writes is there, of a trial that is finished.

        Raises:
            RunStopped: a signal asked for the end; this training will be done again.
        """
        backbone = contestant.make_backbone()
        key = Key(
            network=contestant.name,
            weights_sha256=hash_of_weights(backbone),
            train_images=_hash_of_ids(images.train),
            test_images=_hash_of_ids(images.test),
            cell=cell,
        )
        found = self._trials.get(key)
        if found is None or not kept:
            classifier = Classifier(
                backbone, contestant.dim, images.train.n_classes, self._settings.seed
            )
            found = self._run(key, classifier, images, self._settings_of(contestant))
            if keep is not None and found.top1 is not None:
                keep(classifier, found)
            self._trials.add(found)
            self._seconds.append(found.seconds)
            self._report(found, images)
        self._done += 1
        self._progress.update(self._all, completed=self._done)
        return found

    def _settings_of(self, contestant: Contestant) -> TrainingSettings:
        """The head is faster where the backbone is trained. From scratch, both have one rate."""
        if contestant.trained:
            return self._settings
        return replace(self._settings, head_factor=1.0)

    def _run(
        self, key: Key, classifier: Classifier, images: Images, settings: TrainingSettings
    ) -> Trial:
        start = time.perf_counter()
        if images is not self._images:  # a search trains on the same images again and again
            self._images, self._made = images, self._loaders(images)
        crops, centers = self._made
        steps = settings.epochs * crops.steps_per_epoch + centers.steps_per_epoch
        classifier.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        labels_N = torch.from_numpy(np.ascontiguousarray(images.train.labels))
        with self._steps(f"{key.network}, {key.cell}", steps) as on_step:
            finite = train_classifier(
                classifier,
                crops,
                labels_N,
                settings,
                key.cell,
                device=self._device,
                precision=self._precision,
                on_step=on_step,
            )
            figures = self._tested(classifier, centers, images, on_step) if finite else None
        seconds = round(time.perf_counter() - start, 1)
        if figures is None:
            return Trial(key=key, top1=None, top5=None, loss=None, seconds=seconds)
        found, loss = figures
        return Trial(key=key, top1=found.top1, top5=found.top5, loss=loss, seconds=seconds)

    def _loaders(self, images: Images) -> tuple[Loader, Loader]:
        """Random crops of the training images, center crops of the test images."""
        config, view, device = self._config, self._config.data.view, self._device
        batch = min(self._settings.batch_size, images.train.n_live)
        crops = evaluation_loader(
            images.train,
            config,
            view.crop_and_flip(),
            batch,
            device,
            shuffle=True,
            drop_ragged=True,
            seed=self._settings.seed,
        )
        return crops, evaluation_loader(images.test, config, view.evaluation(), _TEST_BATCH, device)

    def _tested(
        self, classifier: Classifier, loader: Loader, images: Images, on_step: Callable[[], None]
    ) -> tuple[Accuracy, float] | None:
        """Accuracy and mean cross entropy; None where a score is not finite."""
        scores_MC = torch.empty(images.test.n_live, images.test.n_classes)
        with torch.no_grad():
            for ids_B, scores_BC in scores_of(
                classifier, loader, device=self._device, precision=self._precision, on_step=on_step
            ):
                scores_MC[rows_of(images.test, ids_B)] = scores_BC
        if not scores_MC.isfinite().all():
            return None
        return _figures(scores_MC, images)

    @contextmanager
    def _steps(self, name: str, steps: int) -> Iterator[Callable[[], None]]:
        """A bar for one training. Its tick ends the evaluation where a signal asks for that."""
        task: TaskID = self._progress.add_task(escape(name), total=steps)

        def tick() -> None:
            self._progress.advance(task)
            if self._interruption.requested():
                raise RunStopped(
                    f"{self._interruption.reason}: {self._done} of {self._planned} trainings are "
                    f"kept in {self._trials.path}; the same command does the others"
                )

        try:
            yield tick
        finally:
            self._progress.remove_task(task)

    def _report(self, trial: Trial, images: Images) -> None:
        outcome = (
            "diverged"
            if trial.top1 is None
            else f"{trial.top1:.2f} % of {images.test.n_live:,} {images.name}"
        )
        self._progress.console.print(
            f"{self._done + 1}/{self._planned} {escape(trial.key.network)}, {trial.key.cell}: "
            f"{outcome}, {trial.seconds:.0f} s"
            f"{time_left(self._seconds, self._planned - self._done - 1)}",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def tuner_in(
    folder: Path,
    about: dict[str, Any],
    *,
    config: Config,
    settings: TrainingSettings,
    device: torch.device,
    planned: int,
    console: Console,
) -> Iterator[Tuner]:
    """A tuner that keeps what is finished in ``folder``, which it makes and locks.

    Signals ask it to end: see :class:`coke.tools.runs.interruption.Interruption`.

    Args:
        about: what all its trainings share, for a reader of the folder.
        planned: number of trainings, kept ones included.

    Raises:
        ValueError: another process is at work there, or what is there cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = LockFile(folder / "lock")
    except HeldError as error:
        raise ValueError(
            f"{error} is at work on this evaluation in {folder}; wait for it"
        ) from None
    try:
        trials = Trials(folder / SEARCH, about)
        if len(trials):
            console.print(
                f"{len(trials)} finished trainings are taken from {escape(str(trials.path))}",
                highlight=False,
                soft_wrap=True,
            )
        bars = Progress(console=console, transient=True, disable=not console.is_terminal)
        set_tensor_cores(resolve_precision(config.machine.precision, device))
        with Interruption() as interruption, bars as progress:
            yield Tuner(config, settings, device, trials, planned, progress, interruption)
    finally:
        lock.close()


def _figures(scores_MC: Tensor, images: Images) -> tuple[Accuracy, float]:
    """Classes without training images count as never predicted, as in the linear evaluation."""
    labels_M = labels_of(images.test, scores_MC.device)
    trained = torch.zeros(scores_MC.shape[1], dtype=torch.bool)
    trained[torch.from_numpy(np.unique(live_labels(images.train)))] = True
    known = trained[labels_M]
    loss = F.cross_entropy(scores_MC[known], labels_M[known]) if known.any() else torch.zeros(())
    found = accuracy(
        scores_MC.masked_fill(~trained, -math.inf), labels_M, trained_classes=int(trained.sum())
    )
    return found, float(loss)


def time_left(seconds: Sequence[float], others: int) -> str:
    """The end of a line that says how long the other trainings take, by the mean of those so far.

    Empty where it is less than a minute.
    """
    left = others * sum(seconds) / len(seconds)
    return "" if left < _SOON else f"; about {left / 60:.0f} min for the other {others}"


def _hash_of_ids(index: ImageIndex) -> str:
    return hashlib.sha256(live_ids(index).astype("<i8").tobytes()).hexdigest()[:16]


def best_of(trials: Mapping[Cell, Trial]) -> Cell:
    """The cell with the highest top-1; of equals, that with the lowest loss."""
    return max(trials, key=lambda cell: trials[cell].rank)


def diverged(contestant: Contestant, grid: Sequence[Cell]) -> ValueError:
    """The error where no training of a network ended with finite scores."""
    which = f"the training with {grid[0]}" if len(grid) == 1 else "every training of the grid"
    return ValueError(f"{contestant.name}: {which} diverged; give lower learning rates with --lr")
