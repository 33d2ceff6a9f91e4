"""Features that an evaluation compares: of a trained run, of random weights, and raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.model.inference import Inference
from coke.model.precision import inference_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Batch, Loader, build_loader
from coke.tools.evaluation.contestants import PIXELS, RANDOM
from coke.tools.evaluation.feature_room import feature_room
from coke.tools.evaluation.labelled_data import rows_of
from coke.tools.evaluation.networks import hash_of_weights as hash_of_weights
from coke.tools.evaluation.networks import load_run as load_run
from coke.tools.evaluation.one_ahead import one_ahead
from coke.tools.evaluation.subject import Subject, SubjectOptions, open_subject
from coke.tools.evaluation.subset import only

_CALIBRATION_BATCHES = 16  # that give an untrained network its batch-norm statistics
_CHECKED = 2**14  # rows that are checked at a time
_PIXEL_SIDE = 32  # raw pixels of larger views are averaged down to this side

Representation = Callable[[Tensor], Tensor]


class CachedFeatures:
    """Center-crop features of a subject by representation, each computed when first asked for.

    Evaluations that share it share the work.

    Args:
        batch_size: images per forward pass.
    """

    def __init__(self, subject: Subject, batch_size: int, console: Console) -> None:
        self.subject = subject
        self._batch_size = batch_size
        self._console = console

    @cached_property
    def representations(self) -> dict[str, Representation]:
        """The rows of the table, as functions from images to features."""
        return representations(self.subject, self._batch_size)

    @cached_property
    def train(self) -> dict[str, Tensor]:
        """Features (N, D) float32 of the training images, ids ascending."""
        return self._of(self.subject.splits.train)

    @cached_property
    def test(self) -> dict[str, Tensor]:
        """Features (M, D) float32 of the test images, ids ascending."""
        return self._of(self.subject.splits.test)

    def of_some(self, ids_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """Features (M, D) float32 of some training images, ids ascending; only these are computed,
        unless those of all were asked for before.
        """
        train = self.subject.splits.train
        if "train" not in self.__dict__:
            return self._of(only(train, ids_M))
        rows_M = rows_of(train, torch.from_numpy(np.sort(ids_M)))
        return {name: features_ND[rows_M] for name, features_ND in self.train.items()}

    def _of(self, index: ImageIndex) -> dict[str, Tensor]:
        subject, rows = self.subject, self.representations
        return extract(index, subject.config, rows, self._batch_size, subject.device, self._console)


def cache_features(
    run: str | Path,
    data: str | Path,
    *,
    batch_size: int = 256,
    console: Console,
    **options: Unpack[SubjectOptions],
) -> CachedFeatures:
    """Features of a run and of what it is compared with, for several evaluations.

    Raises:
        ValueError: as :func:`open_subject`; features that are not finite are refused later, when
            they are computed.
    """
    return CachedFeatures(open_subject(run, data, **options), batch_size, console)


def representations(subject: Subject, batch_size: int) -> dict[str, Representation]:
    """The rows of an evaluation table, as functions from images to features.

    The random baseline is given batch-norm statistics of the data: without them it would look
    worse than it is.
    """
    config, device = subject.config, subject.device
    precision = inference_precision(config.machine.precision, device)
    found: dict[str, Representation] = {}
    for contestant in subject.contestants():
        network = contestant.make_backbone()
        if not contestant.trained:
            recipe = config.data.view.evaluation()
            calibrate(network, subject.splits.train, config, recipe, batch_size, device)
        found[contestant.name] = frozen(network, device, precision)
        if contestant.name == RANDOM:
            found[PIXELS] = raw_pixels
    return found


def raw_pixels(images: Tensor) -> Tensor:
    """Pixels as features (B, 3 s s), averaged down to at most s = 32 pixels a side."""
    if images.shape[-1] > _PIXEL_SIDE:
        images = F.adaptive_avg_pool2d(images, _PIXEL_SIDE)
    return images.flatten(1)


def evaluation_loader(
    index: ImageIndex,
    config: Config,
    recipe: ViewRecipe,
    batch_size: int,
    device: torch.device,
    *,
    shuffle: bool = False,
    drop_ragged: bool = False,
    seed: int | None = None,
) -> Loader:
    """A loader of one view with the run's own loader settings, and its seed if ``seed`` is None."""
    return build_loader(
        index,
        [recipe],
        batch_size=batch_size,
        seed=config.seed if seed is None else seed,
        shuffle=shuffle,
        drop_ragged=drop_ragged,
        order=config.data.order,
        window=config.data.window,
        cache_gb=config.machine.cache_gb,
        device=str(device),
        threads=config.machine.threads or None,
        backend=config.data.loader,
    )


@torch.no_grad()
def features_of(
    batch: Batch, rows: dict[str, Representation], device: torch.device
) -> dict[str, Tensor]:
    """Features (B, D) float32 of a batch's first view, per representation, on the device."""
    images = batch.views[0].to(device, non_blocking=True)
    return {name: represent(images).float() for name, represent in rows.items()}


@torch.no_grad()
def extract(
    index: ImageIndex,
    config: Config,
    rows: dict[str, Representation],
    batch_size: int,
    device: torch.device,
    console: Console,
) -> dict[str, Tensor]:
    """Features (N, D) float32 of every image, ids ascending, per representation, from one pass.

    They take N x D x 4 bytes for each representation, on the device; on a CPU in a mapped file
    where memory is short, see :func:`coke.tools.evaluation.feature_room.feature_room`. Tombstones
    have no row.

    Raises:
        ValueError: a feature is NaN or infinite, or there is no room for features.
    """
    found: dict[str, Tensor] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"features of {index.folder.name}", total=index.n_live)
        recipe = config.data.view.evaluation()
        batches = evaluation_loader(index, config, recipe, batch_size, device).epoch(0)
        for batch, features in one_ahead(partial(features_of, rows=rows, device=device), batches):
            rows_B = rows_of(index, batch.ids).to(device)
            if not found:
                widths = {name: features_BD.shape[1] for name, features_BD in features.items()}
                cache_dir = config.machine.cache_dir or None
                found = feature_room(index.n_live, widths, device, cache_dir)
            for name, features_BD in features.items():
                found[name][rows_B] = features_BD
            progress.advance(task, len(batch.ids))
    for name, features_ND in found.items():
        check_finite(features_ND, name)
    return found


def check_finite(features_ND: Tensor, name: str) -> None:
    """Raises ValueError if a feature is NaN or infinite: such features have no accuracy."""
    chunks = features_ND.split(_CHECKED)  # a flag for each number at once would take a quarter more
    bad = sum(int((~chunk.isfinite()).any(dim=1).sum()) for chunk in chunks)
    if bad:
        raise ValueError(
            f"features of {name!r} are NaN or infinite for {bad:,} of {len(features_ND):,} images; "
            "evaluate an epoch before the weights diverged (--epoch)"
        )


def frozen(network: nn.Module, device: torch.device, precision: str = "fp32") -> Representation:
    """A network as it is now, in evaluation, as a function from images (B, 3, S, S) to features
    (B, D) float32.

    Args:
        precision: one of :func:`coke.model.precision.inference_precision`.
    """
    return Inference(network, device, precision)


@torch.no_grad()
def calibrate(
    network: nn.Module,
    index: ImageIndex,
    config: Config,
    recipe: ViewRecipe,
    batch_size: int,
    device: torch.device,
) -> None:
    """Gives an untrained network the batch-norm statistics of a data set, from a few batches."""
    loader = evaluation_loader(index, config, recipe, batch_size, device, shuffle=True)
    network.to(device).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average over the batches
    for count, batch in enumerate(loader.epoch(0), start=1):
        network(batch.views[0].to(device))
        if count == _CALIBRATION_BATCHES:
            break
