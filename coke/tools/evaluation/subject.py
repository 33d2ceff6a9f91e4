"""What an evaluation is about: a run's checkpoint, labelled data, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from coke.config.config import Config
from coke.model.backbone import fixed_image_size
from coke.model.coke_model import CoKe
from coke.model.precision import resolve_device
from coke.tools.evaluation.against import Rival, open_rival
from coke.tools.evaluation.contestants import Contestant, contestants
from coke.tools.evaluation.labelled_data import Splits, open_one, open_splits
from coke.tools.evaluation.networks import hash_of_weights, load_run
from coke.tools.runs.run_folder import RunFolder


class SubjectOptions(TypedDict, total=False):
    """The options that every evaluation has.

    Keys:
        test: the test data set, where DATA has no test split.
        epoch: of the checkpoint; the newest if None.
        size: side of the center crops in pixels; that of the run's evaluations if None.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        baselines: also evaluate random initialisation and raw pixels; the default.
        against: runs, checkpoints or files of weights to compare with.
        labelled_only: leave out images without a class label.
        split: for evaluations of one data set: which of a folder of splits; ``train`` if None.
            Where this key is given, no test data set is opened.
        train_ids: ids (M,) of the train data set, or the path of a ``.npy`` file: learn from these
            images alone; all if None.
    """

    test: str | Path | None
    epoch: int | None
    size: int | None
    device: str
    baselines: bool
    against: Sequence[str | Path]
    labelled_only: bool
    split: str | None
    train_ids: Any


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: a run's checkpoint on labelled data, on a device.

    Attributes:
        run: its folder.
        config: of the run; its view has the evaluation size that was asked for.
        weights_sha256: hash over the backbone.
        baselines: whether the table has random initialisation and raw pixels.
        rivals: weights of ``--against``.
    """

    run: Path
    config: Config
    model: CoKe
    epoch: int
    weights_sha256: str
    splits: Splits
    device: torch.device
    baselines: bool = True
    rivals: tuple[Rival, ...] = ()

    def contestants(self) -> list[Contestant]:
        """The networks to compare, in the order of their rows; raw pixels have none."""
        return contestants(self.config, self.model, baselines=self.baselines, rivals=self.rivals)


def open_subject(run: str | Path, data: str | Path, **options: Unpack[SubjectOptions]) -> Subject:
    """A run and the data to evaluate it on. The data may be other than the run's.

    Args:
        run: a run folder of ``coke train``.
        data: a folder with a train and a test data set, or a train data set with ``test``.
        options: see :class:`SubjectOptions`.

    Raises:
        ValueError: no such run, epoch or device; weights of ``against`` that cannot be used; a size
            that a network does not take; or data that :func:`open_splits` refuses.
    """
    splits = _open_data(data, RunFolder(run).config(), options)
    config, model, epoch = load_run(run, options.get("epoch"))
    config = _at_size(config, options.get("size"))
    sources = dict.fromkeys(str(source) for source in options.get("against", ()))
    subject = Subject(
        run=Path(run),
        config=config,
        model=model,
        epoch=epoch,
        weights_sha256=hash_of_weights(model.backbone),
        splits=splits,
        device=resolve_device(options.get("device", "auto")),
        baselines=options.get("baselines", True),
        rivals=tuple(open_rival(source, config) for source in sources),
    )
    _check_size(subject, asked=options.get("size") is not None)
    return subject


def _open_data(data: str | Path, config: Config, options: SubjectOptions) -> Splits:
    only, cache_dir = options.get("labelled_only", False), config.machine.cache_dir or None
    ids = options.get("train_ids")
    if "split" in options:
        return open_one(data, options["split"], labelled_only=only, cache_dir=cache_dir, ids=ids)
    test = options.get("test")
    return open_splits(data, test, labelled_only=only, cache_dir=cache_dir, ids=ids)


def _at_size(config: Config, size: int | None) -> Config:
    """The settings of a run with another size of center crops."""
    if size is None:
        return config
    if size < 8:
        raise ValueError(f"--size is {size}; it is in pixels and at least 8")
    return config.changed(data={"view": replace(config.data.view, evaluation_size=size)})


def _check_size(subject: Subject, *, asked: bool) -> None:
    """Raises ValueError where a network takes views of another side only."""
    size = subject.config.data.view.evaluation().size
    networks = {"the run's": subject.model.backbone}
    networks |= {rival.source: rival.network for rival in subject.rivals}
    for name, network in networks.items():
        fixed = fixed_image_size(network)
        if fixed and size != fixed:
            what = "--size is" if asked else "the run is evaluated on center crops of side"
            raise ValueError(
                f"{what} {size}, but {name} network was built for images of side {fixed} only; "
                f"give --size {fixed}"
            )
