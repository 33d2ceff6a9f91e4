"""Features that an evaluation compares: of a trained run, of random weights, and raw pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from coke.config.config import Config
from coke.config.view_recipe import ViewRecipe
from coke.model.coke_model import CoKe, build_model
from coke.model.precision import resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Loader, build_loader
from coke.tools.evaluation.labelled_data import Splits, open_splits, rows_of
from coke.tools.runs.run_folder import RunFolder

_CALIBRATION_BATCHES = 16  # that give an untrained network its batch-norm statistics
_PIXEL_SIDE = 32  # raw pixels of larger views are averaged down to this side

Representation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: a run's checkpoint on labelled data, on a device.

    ``weights_sha256`` is a hash over the backbone.
    """

    config: Config
    model: CoKe
    epoch: int
    weights_sha256: str
    splits: Splits
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class CachedFeatures:
    """Center-crop features (N, D) float32 of both data sets, ids ascending, by representation."""

    subject: Subject
    train: dict[str, Tensor]
    test: dict[str, Tensor]


def open_subject(
    run: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    epoch: int | None = None,
    device: str = "auto",
    labelled_only: bool = False,
) -> Subject:
    """A run and the data to evaluate it on.

    Raises:
        ValueError: no such run or epoch, no such device, or data that :func:`open_splits` refuses.
    """
    cache_dir = RunFolder(run).config().machine.cache_dir or None
    splits = open_splits(data, test, labelled_only=labelled_only, cache_dir=cache_dir)
    config, model, epoch = load_run(run, epoch)
    return Subject(
        config=config,
        model=model,
        epoch=epoch,
        weights_sha256=hash_of_weights(model.backbone),
        splits=splits,
        device=resolve_device(device),
    )


def cache_features(
    run: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    epoch: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
    baselines: bool = True,
    labelled_only: bool = False,
    console: Console,
) -> CachedFeatures:
    """Features of a run and, with ``baselines``, of random initialisation and raw pixels.

    Raises:
        ValueError: as :func:`open_subject`, or features that are not finite.
    """
    subject = open_subject(
        run, data, test=test, epoch=epoch, device=device, labelled_only=labelled_only
    )
    rows = representations(subject, batch_size, baselines)
    train, test_features = (
        extract(index, subject.config, rows, batch_size, subject.device, console)
        for index in (subject.splits.train, subject.splits.test)
    )
    return CachedFeatures(subject=subject, train=train, test=test_features)


def load_run(run: str | Path, epoch: int | None = None) -> tuple[Config, CoKe, int]:
    """Configuration, trained model and epoch of a run's checkpoint, the newest when None."""
    folder = RunFolder(run)
    config = folder.config()
    state = folder.state(epoch)
    model = build_model(config.model, config.seed)
    model.load_state_dict(state["model"])
    return config, model, int(state["epoch"])


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 of all weights and statistics. It changes when a run is trained again."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def representations(
    subject: Subject, batch_size: int, baselines: bool
) -> dict[str, Representation]:
    """The rows of an evaluation table, as functions from images to features.

    The random baseline is given batch-norm statistics of the data: without them it would look
    worse than it is.
    """
    config, device = subject.config, subject.device
    trained = frozen(subject.model.backbone, device)
    if not baselines:
        return {"CoKe": trained}
    random, train = build_model(config.model, config.seed).backbone, subject.splits.train
    calibrate(random, train, config, config.data.view.evaluation(), batch_size, device)
    return {
        "random initialisation": frozen(random, device),
        "raw pixels": raw_pixels,
        "CoKe": trained,
    }


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
) -> Loader:
    """A loader of one view with the run's own loader settings."""
    return build_loader(
        index,
        [recipe],
        batch_size=batch_size,
        seed=config.seed,
        shuffle=shuffle,
        order=config.data.order,
        window=config.data.window,
        cache_gb=config.machine.cache_gb,
        device=str(device),
        threads=config.machine.threads or None,
        backend=config.data.loader,
    )


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

    They stay on the device: N x D x 4 bytes for each representation. Tombstones have no row.

    Raises:
        ValueError: a feature is NaN or infinite.
    """
    found: dict[str, Tensor] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"features of {index.folder.name}", total=index.n_live)
        recipe = config.data.view.evaluation()
        for batch in evaluation_loader(index, config, recipe, batch_size, device).epoch(0):
            images = batch.views[0].to(device)
            rows_B = rows_of(index, batch.ids).to(device)
            for name, represent in rows.items():
                features_BD = represent(images).float()
                if name not in found:
                    found[name] = features_BD.new_empty(index.n_live, features_BD.shape[1])
                found[name][rows_B] = features_BD
            progress.advance(task, len(batch.ids))
    for name, features_ND in found.items():
        check_finite(features_ND, name)
    return found


def check_finite(features_ND: Tensor, name: str) -> None:
    """Raises ValueError if a feature is NaN or infinite: such features have no accuracy."""
    bad = int((~features_ND.isfinite()).any(dim=1).sum())
    if bad:
        raise ValueError(
            f"features of {name!r} are NaN or infinite for {bad:,} of {len(features_ND):,} images; "
            "evaluate an epoch before the weights diverged (--epoch)"
        )


def frozen(network: nn.Module, device: torch.device) -> Representation:
    """A network in evaluation mode, as a function from images (B, 3, S, S) to features (B, D)."""
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.no_grad()
    def represent(images: Tensor) -> Tensor:
        features_BD: Tensor = network(images)
        return features_BD

    return represent


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
