"""``coke eval finetune``: the whole network trained on the labels, as in the paper's Table 8."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.model.precision import resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.console.tables import print_table
from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.classifier import Cell, Classifier, TrainingSettings
from coke.tools.evaluation.contestants import TRAINED, Contestant
from coke.tools.evaluation.evaluation import evaluate_run
from coke.tools.evaluation.few_images import Subset
from coke.tools.evaluation.figures import Row, accuracy_row
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import CachedFeatures
from coke.tools.evaluation.subject import Subject, SubjectOptions
from coke.tools.evaluation.subset import held_out, only
from coke.tools.evaluation.trials import Trial
from coke.tools.evaluation.tuner import Images, Tuner, best_of, diverged, tuner_in
from coke.tools.runs.classifier_file import FOLDER, MODEL, FineTuned, write_classifier

#: The grid of the paper (App. B.4).
LEARNING_RATES = (1.0, 0.1, 0.01, 0.001)
WEIGHT_DECAYS = (1e-5, 1e-6, 0.0)
#: Share of each class that the search is tested on: of all images, and of a few.
_HELD_OUT, _HELD_OUT_OF_FEW = 0.1, 0.2
#: As in SimCLR (Chen et al., ICML 2020, App. B.8); the paper gives no number.
_STEPS, _BATCH = 20_000, 256
_MOST_EPOCHS = 100  # so that a small data set is not seen thousands of times
#: As in SimCLR (App. B.5): epochs on 1 % and on 10 % of the labels, and no weight decay.
_EPOCHS_ON_FEW, _EPOCHS_ON_SOME, _SOME = 60, 30, 0.05
#: Batches of a few images are smaller, for so many steps in an epoch; batch norm needs so many
#: images all the same.
_FEWEST_STEPS, _SMALLEST_BATCH = 8, 16
_LARGEST_LR = 1e30  # a larger one, scaled by the batch size, may overflow float32


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """The evaluation, see :class:`coke.tools.evaluation.evaluation.Evaluation`.

    Attributes:
        run: the run's folder. Finished trainings and the classifier are kept in it.
        method: as in the table's title.
        subsets: the images to train on, a training each; all training images if empty.
        lrs, weight_decays: the grid of the search; the paper's if empty, without weight decay on
            subsets. One cell needs no search.
        epochs: of every training; SimCLR's when None, see :meth:`training`.
        batch_size: images per step; 256 when None, and on subsets an eighth of the images, 16 to
            256.
        seed: of the held-out part, the head's first weights, the order of images and the crops.
    """

    run: Path
    method: str = "fine-tuned"
    subsets: tuple[Subset, ...] = ()
    lrs: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for rate in self.lrs:
            if not 0 < rate < _LARGEST_LR:
                raise ValueError(f"lr is {rate}; it must be positive and below {_LARGEST_LR}")
        for decay in self.weight_decays:
            if not 0 <= decay < math.inf:
                raise ValueError(f"weight_decay is {decay}; it must be 0 or positive, and finite")
        TrainingSettings(
            epochs=1 if self.epochs is None else self.epochs,
            batch_size=_BATCH if self.batch_size is None else self.batch_size,
        )

    @property
    def grid(self) -> tuple[Cell, ...]:
        """The cells of the search, each once."""
        lrs = self.lrs or LEARNING_RATES
        decays = self.weight_decays or ((0.0,) if self.subsets else WEIGHT_DECAYS)
        cells = itertools.product(lrs, decays)
        return tuple(dict.fromkeys(Cell(lr=lr, weight_decay=decay) for lr, decay in cells))

    def training(self, subject: Subject) -> TrainingSettings:
        """What all trainings share.

        By default an epoch of all images is repeated until SimCLR's 20,000 steps are done, but at
        most 100 times. A subset of less than 5 % of them is repeated 60 times, a larger one 30
        times, as in SimCLR.
        """
        images = subject.splits.train.n_live
        epochs, batch_size = default_epochs(images), _BATCH
        if self.subsets:
            few = min(len(subset.ids) for subset in self.subsets)
            epochs = _EPOCHS_ON_FEW if few < _SOME * images else _EPOCHS_ON_SOME
            batch_size = max(min(_BATCH, few // _FEWEST_STEPS), _SMALLEST_BATCH)
        return TrainingSettings(
            epochs=epochs if self.epochs is None else self.epochs,
            batch_size=batch_size if self.batch_size is None else self.batch_size,
            seed=self.seed,
        )

    def settings(self, subject: Subject) -> dict[str, Any]:
        return {
            **self._shared(subject),
            **({"subsets": [s.record() for s in self.subsets]} if self.subsets else {}),
            "learning_rates": sorted({cell.lr for cell in self.grid}, reverse=True),
            "weight_decays": sorted({cell.weight_decay for cell in self.grid}, reverse=True),
            "held_out": self.held_out if len(self.grid) > 1 else None,
        }

    def rows(self, features: CachedFeatures, console: Console) -> dict[str, Row]:
        subject, networks = features.subject, features.subject.contestants()
        about = {
            "epoch": subject.epoch,
            "weights_sha256": subject.weights_sha256,
            "size": subject.config.data.view.evaluation().size,
            "data": asdict(subject.splits.records),
            "settings": self._shared(subject),
        }
        place = self.run / ("lowshot" if self.subsets else FOLDER) / _identity(about)
        trainings = (len(self.grid) + 1 if len(self.grid) > 1 else 1) * max(len(self.subsets), 1)
        with tuner_in(
            place,
            about,
            config=subject.config,
            settings=self.training(subject),
            device=subject.device,
            planned=len(networks) * trainings,
            console=console,
        ) as tuner:
            work = _Work(self, subject, about, place, tuner, console)
            rows = {network.name: work.row(network) for network in networks}
        if not self.subsets:
            console.print(
                f"the classifier: {escape(str(place / MODEL))}", highlight=False, soft_wrap=True
            )
        return rows

    @property
    def held_out(self) -> float:
        """Share of each class that the search is tested on."""
        return _HELD_OUT_OF_FEW if self.subsets else _HELD_OUT

    def _shared(self, subject: Subject) -> dict[str, Any]:
        """What kept trainings of other grids and subsets have in common with these."""
        return {
            **asdict(self.training(subject)),
            "head_factor_from_scratch": 1.0,
            "optimizer": "SGD with Nesterov momentum, cosine to 0; the rate is at batch 256",
            "view": "random crop and flip",
            "scale": list(subject.config.data.view.scale),
            "precision": resolve_precision(subject.config.machine.precision, subject.device),
        }


def eval_finetune(
    run: str | Path,
    data: str | Path,
    *,
    lr: Sequence[float] = (),
    weight_decay: Sequence[float] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    features: CachedFeatures | None = None,
    console: Console | None = None,
    **options: Unpack[SubjectOptions],
) -> EvalReport:
    """Fine-tunes a run's network on the training images and tests it (Table 8 of the paper).

    Learning rate and weight decay are searched on a tenth of each class that is held out. Then the
    network is trained once on all training images and tested once. The same network from random
    initialisation, and the weights of ``against``, are searched and trained alike. Finished
    trainings are kept in ``RUN/finetune/IDENTITY/search.json`` and not done again; the run's
    classifier is kept in ``model.pt`` beside it.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        lr: learning rates of the backbone to search, at batch size 256; the head's is ten times as
            high. The paper's if empty.
        weight_decay: weight decays to search; the paper's if empty.
        epochs, batch_size, seed: see :class:`FineTune`.
        features: of this run and data; their subject is used.
        options: see :class:`coke.tools.evaluation.subject.SubjectOptions`.

    Raises:
        ValueError: as :func:`coke.tools.evaluation.evaluation.evaluate_run`; settings out of range;
            another process that is at work on the same; or trainings that all diverge.
        RunStopped: a signal asked for the end. The same call goes on.
    """
    evaluation = FineTune(
        run=Path(run),
        lrs=tuple(lr),
        weight_decays=tuple(weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    return evaluate_run(evaluation, run, data, features=features, console=console, **options)


def default_epochs(images: int) -> int:
    """Epochs that come nearest to SimCLR's 20,000 steps of 256 images; 100 at most, 1 at least."""
    return min(max(round(_STEPS * _BATCH / images), 1), _MOST_EPOCHS)


@dataclass(frozen=True)
class _Work:
    """A fine-tuning in progress."""

    settings: FineTune
    subject: Subject
    about: Mapping[str, Any]
    place: Path
    tuner: Tuner
    console: Console

    def row(self, network: Contestant) -> Row:
        """The row of a network: one training on all images, or one on each subset."""
        train, subsets = self.subject.splits.train, self.settings.subsets
        parts = [(only(train, subset.ids), subset.seed, subset.name) for subset in subsets]
        found = [
            self._outcome(network, *part) for part in parts or [(train, self.settings.seed, "")]
        ]
        chosen = {name: ", ".join(how[name] for _, how in found) for name in found[0][1]}
        return accuracy_row([hits for hits, _ in found], self.subject.splits.test.n_live, chosen)

    def _outcome(
        self, network: Contestant, train: ImageIndex, seed: int, name: str
    ) -> tuple[Accuracy, dict[str, str]]:
        """Searches the grid, trains with the best cell on all images, and tests once."""
        (cell, *others), chosen = self.settings.grid, {}
        if others:
            trials = self._search(network, train, seed, name)
            cell = best_of(trials)
            chosen["held-out top-1 %"] = _percent(trials[cell])
        keeps = network.name == TRAINED and not self.settings.subsets
        found = self.tuner.trial(
            network,
            Images(train=train, test=self.subject.splits.test, name="test images"),
            cell,
            keep=self._keep if keeps else None,
            kept=not keeps or (self.place / MODEL).is_file(),
        )
        if found.top1 is None:
            raise diverged(network, [cell])
        chosen |= {"learning rate": f"{cell.lr:g}", "weight decay": f"{cell.weight_decay:g}"}
        return Accuracy(top1=found.top1, top5=found.top5), chosen

    def _search(
        self, network: Contestant, train: ImageIndex, seed: int, name: str
    ) -> dict[Cell, Trial]:
        held = held_out(train, self.settings.held_out, seed)
        if len(held) == 0:
            raise ValueError(
                f"{train.folder}: no class has two images to train on, so none can be held out for "
                "a search; give one --lr and one --weight-decay"
            )
        images = Images(train=train.without(held), test=only(train, held), name="held-out images")
        trials = self.tuner.search(network, images, self.settings.grid)
        title = ", ".join(filter(None, (network.name, name)))
        print_table(self.console, _search_table(title, trials))
        return trials

    def _keep(self, classifier: Classifier, trial: Trial) -> None:
        subject = self.subject
        found = FineTuned(
            model=subject.config.model,
            backbone=classifier.backbone.state_dict(),
            head_weight=classifier.head.weight,
            head_bias=classifier.head.bias,
            classes=tuple(subject.splits.train.manifest.classes),
            view=subject.config.data.view.evaluation(),
            about={
                **self.about,
                "run": str(self.settings.run),
                "lr": trial.key.cell.lr,
                "weight_decay": trial.key.cell.weight_decay,
                "top1": trial.top1,
                "top5": trial.top5,
                "test_images": subject.splits.test.n_live,
            },
        )
        write_classifier(self.place / MODEL, found)


def _identity(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def _search_table(title: str, trials: Mapping[Cell, Trial]) -> Table:
    """Top-1 on the held-out images: a row for each learning rate, a column for each decay."""
    decays = list(dict.fromkeys(cell.weight_decay for cell in trials))
    table = Table(title=f"{escape(title)}: top-1 % on held-out images")
    table.add_column("learning rate", justify="right")
    for decay in decays:
        table.add_column(f"decay {decay:g}", justify="right")
    for lr in dict.fromkeys(cell.lr for cell in trials):
        cells = [trials[Cell(lr=lr, weight_decay=decay)] for decay in decays]
        table.add_row(f"{lr:g}", *map(_percent, cells))
    return table


def _percent(trial: Trial) -> str:
    return "diverged" if trial.top1 is None else f"{trial.top1:.2f}"
