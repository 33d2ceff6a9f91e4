"""Trains and evaluates a cell."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from benchmarks.quality.grid import METHODS, Cell, config_of
from benchmarks.quality.record import Record, packed
from coke.config.config import Config
from coke.config.overrides import differences
from coke.model.coke_model import CoKe, build_model
from coke.model.optimizer import learning_rate, set_learning_rate
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.bench.machine import device_name
from coke.tools.bench.peers import MoCo, Peer, SimCLR, SwAV
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.evaluation.labelled_data import labels_of
from coke.tools.evaluation.linear_classifier import LinearConfig, fit_on_cached
from coke.tools.evaluation.representations import CachedFeatures, cache_features
from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.train import train
from coke.tools.training.training_loader import training_loader

#: Prototypes, queues and temperatures of the peers for a small data set with small batches: a
#: queue of ImageNet's 65,536 would hold every image's own older keys. The optimiser, its schedule
#: and the views are those of CoKe's preset; SimCLR's temperature is its paper's for CIFAR-10, the
#: other settings of the peers are their papers'. On one device MoCo's batches are not shuffled
#: before batch norm: there is no other to go to.
PEERS: dict[str, Callable[[CoKe, Config, str, int], Peer]] = {
    "simclr": lambda model, config, precision, _: SimCLR(
        model, config.optimizer, precision, temperature=0.5
    ),
    "moco-v2": lambda model, config, precision, _: MoCo(
        model, config.optimizer, precision, queue=4096, momentum=0.99
    ),
    "swav": lambda model, config, precision, steps: SwAV(
        model,
        config.optimizer,
        precision,
        prototypes=sum(config.clustering.n_clusters),
        queue=3840,
        frozen_steps=steps,
    ),
}


def measure(cell: Cell, data: Path, runs: Path) -> Record:
    """Trains a cell, or goes on where its training stopped, and evaluates it.

    Args:
        runs: folder of the run folders; the cell's is removed in the end.

    Raises:
        ValueError: the training diverged.
    """
    config, run = config_of(cell), runs / cell.name
    started, fresh = time.process_time(), not run.exists()
    peer = METHODS[cell.method].peer
    if peer:
        _trained_peer(peer, config, data, run)
    else:
        train(config, data, run, resume="auto", console=Console(quiet=True))
    seconds = time.process_time() - started if fresh else 0.0
    features = cache_features(
        run, data, epoch=config.optimizer.epochs, baselines=False, console=Console(quiet=True)
    )
    knn_M, linear_M = hits_of(features)
    record = Record(
        method=cell.method,
        images=cell.images,
        epochs=cell.epochs,
        seed=cell.seed,
        knn=round(100 * float(knn_M.mean()), 2),
        linear=round(100 * float(linear_M.mean()), 2),
        knn_hits=packed(knn_M),
        linear_hits=packed(linear_M),
        test_images=len(knn_M),
        views=config.data.views * config.optimizer.epochs,
        steps=cell.images // config.data.batch_size * config.optimizer.epochs,
        cpu_seconds=round(seconds, 1),
        cpu=device_name(torch.device("cpu")),
        date=str(date.today()),
    )
    shutil.rmtree(run)
    return record


def hits_of(features: CachedFeatures) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which test images k-NN and the fast linear classifier get right, ids ascending.

    The settings are those of ``coke eval knn`` and ``coke eval linear --fast``. The best class of
    equal scores is the first.
    """
    splits, device = features.subject.splits, features.subject.device
    train_labels, labels_M = labels_of(splits.train, device), labels_of(splits.test, device)
    (train_ND,), (test_MD,) = features.train.values(), features.test.values()
    knn_MC = knn_classify(train_ND, train_labels, test_MD, n_classes=splits.n_classes)
    probe = fit_on_cached(train_ND, train_labels, splits.n_classes, LinearConfig())
    return _hits(knn_MC, labels_M), _hits(probe.scores(test_MD), labels_M)


def _hits(scores_MC: Tensor, labels_M: Tensor) -> NDArray[np.bool_]:
    return (scores_MC.argmax(dim=1) == labels_M).cpu().numpy()


def _trained_peer(method: str, config: Config, data: Path, run: Path) -> None:
    """Trains a peer, unless its run is there whole and has these settings."""
    folder = RunFolder(run)
    if any(folder.checkpoints.glob("*")) and not differences(folder.config(), config):
        return  # a peer's only checkpoint is that of its last epoch
    shutil.rmtree(run, ignore_errors=True)
    train_peer(method, config, data, run)


def train_peer(method: str, config: Config, data: Path, out: Path) -> None:
    """Trains a peer as ``coke train`` trains CoKe, but without a scan; leaves a run folder."""
    index = ImageIndex(find_split(data, ("train",)))
    device = resolve_device(config.machine.device)
    precision = resolve_precision(config.machine.precision, device)
    run = RunFolder(out)
    run.create(config, index)
    model = build_model(config.model, config.seed).train()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = training_loader(config, index, config.recipes_at(1), device)
    peer = PEERS[method](model, config, precision, loader.steps_per_epoch)
    for epoch in range(1, config.optimizer.epochs + 1):
        if config.recipes_at(epoch) != loader.recipes:  # views grow in the first epochs
            loader = training_loader(config, index, config.recipes_at(epoch), device)
        for step, batch in enumerate(loader.epoch(epoch)):
            progress = epoch - 1 + step / loader.steps_per_epoch
            lr = learning_rate(config.optimizer, progress=progress)
            set_learning_rate(peer.optimizer, lr)
            loss = peer.step([view.to(device) for view in batch.views], batch.ids.to(device))
        if not torch.isfinite(loss):
            raise ValueError(f"{method} diverged in epoch {epoch}: its loss is {float(loss)}")
    state = {"model": model.state_dict(), "epoch": config.optimizer.epochs, "precision": precision}
    save_checkpoint(run.checkpoints, CheckpointName(epoch=config.optimizer.epochs), state)


def ingested(archive: Path, out: Path, images: int) -> Path:
    """The data set of the first images of each class, made from the archive if it is not there."""
    if out.exists():
        return out
    with tempfile.TemporaryDirectory() as unpacked:
        root = Path(unpacked)
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
        classes = sorted(path for path in _split(root, "train").iterdir() if path.is_dir())
        for folder in classes:
            for file in sorted(folder.iterdir())[images // len(classes) :]:
                file.unlink()
        ingest(_split(root, "train").parent, out, console=Console(quiet=True))
    return out


def _split(root: Path, name: str) -> Path:
    """The folder of a split, wherever the archive has it."""
    return next(path for path in sorted(root.rglob(name)) if path.is_dir())
