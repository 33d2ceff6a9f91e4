"""CoKe and what a user would pick instead, on CIFAR-10: one table, in one run.

    COKE_TEST_DATA=FOLDER python benchmarks/quality.py [--images 10000] [--epochs 20]
        [--seeds 2] [--methods coke,coke-2views:3,swav] [--jobs 2] [--save]

Unpacks ``cifar10.tar.gz`` from the folder (class folders of JPEGs, 50,000 + 10,000), ingests it,
trains every method without labels with the same backbone, projector, optimiser, schedule, batch
and views, and evaluates frozen backbones on the test images: k-NN and linear.
``coke-as-many-views`` is the single view trained twice as long: it sees as many views as the
methods with two. With ``--images``, clusters and prototypes keep the images each has of 50,000.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from coke.config.config import Config
from coke.config.overrides import with_settings
from coke.config.presets import preset_named
from coke.model.coke_model import CoKe, build_model
from coke.model.optimizer import learning_rate, set_learning_rate
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.bench.peers import MoCo, Peer, SimCLR, SwAV
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.linear import eval_linear
from coke.tools.evaluation.representations import cache_features
from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.train import train
from coke.tools.training.training_loader import training_loader

#: Prototypes, queues and temperatures of the peers for a small data set with small batches: a
#: queue of ImageNet's 65,536 would hold every image's own older keys. The optimiser, its schedule
#: and the views are those of CoKe's preset, which were chosen for CoKe with one view; SimCLR's
#: temperature is its paper's for CIFAR-10, the other settings of the peers are their papers'.
#: On one device MoCo's batches are not shuffled before batch norm: there is no other to go to.
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

#: CoKe's forms, as settings on top of the preset ``cifar10``, or ``cifar10-2view`` for two views.
COKE: dict[str, Mapping[str, Any]] = {
    "coke": {},
    "coke-as-many-views": {},
    "coke-2views": {},
    "coke-2views-constant-alpha": {"alpha_warmup": 0.0},
    "coke-2views-label-alone": {"alpha_warmup": 0.0, "alpha": 1.0},
    "ratio-0.8": {"clustering": {"min_ratio": 0.8}},
    "ratio-0.4": {"clustering": {"min_ratio": 0.4}},
    "ratio-0": {"clustering": {"min_ratio": 0.0}},
    "paper-rule-ratio-1": {"clustering": {"dual_rule": "paper", "min_ratio": 1.0}},
    "paper-rule-ratio-0.4": {"clustering": {"dual_rule": "paper", "min_ratio": 0.4}},
    "paper-rule-ratio-0": {"clustering": {"dual_rule": "paper", "min_ratio": 0.0}},
    "current-labels": {"clustering": {"labels_from": "current"}},
    "current-centers": {"clustering": {"centers_from": "current"}},
    "current-both": {"clustering": {"labels_from": "current", "centers_from": "current"}},
}
METHODS = (*COKE, *PEERS)
TEST_IMAGES = 10_000

#: Orders of the paper (Tables 1, 2 and 5) that the run confirms or not: the better one first.
EXPECTED = (
    ("coke-2views", "coke-as-many-views"),
    ("coke-as-many-views", "swav"),
    ("ratio-0.4", "coke"),
    ("coke", "ratio-0"),
    ("paper-rule-ratio-0.4", "paper-rule-ratio-1"),
    ("paper-rule-ratio-1", "paper-rule-ratio-0"),
    ("coke", "current-centers"),
    ("current-centers", "current-labels"),
    ("current-centers", "current-both"),
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One training: top-1 in percent on the test images, and how long it took."""

    knn: float
    linear: float
    views: int  # of each image, that the weights learned from
    minutes: float


def main() -> None:
    options = _options()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds cifar10.tar.gz")
    console = Console(record=True, width=110)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "dataset"
        _ingest(Path(data) / "cifar10.tar.gz", folder, options.images)
        scores: dict[str, list[Score]] = {method: [] for method in options.methods}
        with _pool(options.jobs) as pool:
            trainings = {
                pool.submit(
                    measure,
                    config_of(method, options.epochs, options.batch_size, seed, options.images),
                    method,
                    folder,
                    Path(scratch) / f"{method}-{seed}",
                ): (method, seed)
                for seed in range(max(options.methods.values()))
                for method, seeds in options.methods.items()
                if seed < seeds
            }
            for training in as_completed(trainings):
                method, seed = trainings[training]
                try:
                    score = training.result()
                except ValueError as error:  # it diverged; the others go on
                    console.print(f"seed {seed}, {method}: {error}", highlight=False)
                    continue
                scores[method].append(score)
                console.print(
                    f"seed {seed}, {method}: k-NN {score.knn:.2f}, linear {score.linear:.2f}, "
                    f"{score.minutes:.1f} minutes",
                    highlight=False,
                )
        scores = {method: runs for method, runs in scores.items() if runs}
        scores["random initialisation"] = [_untrained(folder, Path(scratch) / "random")]
    console.print(_table(scores, options))
    for line in orders(scores):
        console.print(line, highlight=False)
    if options.save:
        path = Path(__file__).parent / "results" / f"quality-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that share the cores evenly; each training has its share to itself."""
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    shares: Any = context.Queue()
    for job in range(jobs):
        shares.put(cores[job::jobs])
    return ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_take_cores, initargs=(shares,)
    )


def _take_cores(shares: Any) -> None:
    cores = shares.get()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))


def measure(config: Config, method: str, data: Path, run: Path) -> Score:
    """Trains a method into a new run folder, evaluates it and removes the folder."""
    started = time.perf_counter()
    if method in PEERS:
        train_peer(method, config, data, run)
    else:
        train(config, data, run, console=Console(quiet=True))
    minutes = (time.perf_counter() - started) / 60
    knn, linear = _evaluated(run, data, config.optimizer.epochs)
    shutil.rmtree(run)
    return Score(
        knn=knn, linear=linear, views=config.data.views * config.optimizer.epochs, minutes=minutes
    )


def config_of(
    method: str, epochs: int, batch_size: int | None, seed: int, images: int | None = None
) -> Config:
    """The settings of a method: they differ in what the method's name says, and in nothing else.

    The peers take the two views and the schedule from the two-view form. Clusters are the preset's
    for all 50,000 images, and fewer in proportion for fewer.
    """
    two_views = method in PEERS or method.startswith("coke-2views")
    config = preset_named("cifar10-2view" if two_views else "cifar10")
    config = replace(config, seed=seed).changed(
        optimizer={"epochs": 2 * epochs if method == "coke-as-many-views" else epochs},
        data={"batch_size": batch_size or config.data.batch_size, "drop_ragged": True},
        run={"keep_checkpoints": 1},
    )
    share = (images or 50_000) / 50_000
    heads = [max(2, round(k * share)) for k in config.clustering.n_clusters]
    config = with_settings(config, {"clustering": {"n_clusters": heads}})
    return with_settings(config, COKE.get(method, {}))


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


def orders(scores: Mapping[str, list[Score]]) -> Iterator[str]:
    """One line per expected order that was measured: by how much it held, linear top-1.

    The error is that of the test images alone: twice the standard error of a difference, as if both
    were tested on different images, which is too large, as they share them. Seeds differ as well,
    by what the table says.
    """
    for better, worse in EXPECTED:
        if better in scores and worse in scores:
            a, b = ([s.linear for s in scores[name]] for name in (better, worse))
            variance = sum(
                statistics.mean(values) * (100 - statistics.mean(values)) / TEST_IMAGES
                for values in (a, b)
            )
            gain, error = statistics.mean(a) - statistics.mean(b), 2 * math.sqrt(variance)
            held = "undecided"
            if abs(gain) >= error:
                held = "held" if gain > 0 else "did not hold"
            yield f"{better} >= {worse}: {held} ({gain:+.2f} points, error {error:.2f}, linear)"


def _evaluated(run: Path, data: Path, epoch: int) -> tuple[float, float]:
    """k-NN and linear top-1 in percent."""
    quiet = Console(quiet=True)
    features = cache_features(run, data, epoch=epoch, baselines=False, console=quiet)
    knn = eval_knn(run, data, features=features, console=quiet)
    linear = eval_linear(run, data, fast=True, features=features, console=quiet)
    return knn.rows["CoKe"].top1, linear.rows["CoKe"].top1


def _untrained(data: Path, run: Path) -> Score:
    """The same backbone with random weights."""
    config = config_of("coke", 1, None, 0)
    folder = RunFolder(run)
    folder.create(config, ImageIndex(find_split(data, ("train",))))
    state = {"model": build_model(config.model, config.seed).state_dict(), "epoch": 0}
    save_checkpoint(folder.checkpoints, CheckpointName(epoch=0), {**state, "precision": "fp32"})
    quiet = Console(quiet=True)
    features = cache_features(run, data, epoch=0, console=quiet)
    name = "random initialisation"  # with the data's batch-norm statistics
    knn = eval_knn(run, data, features=features, console=quiet).rows[name]
    linear = eval_linear(run, data, fast=True, features=features, console=quiet).rows[name]
    return Score(knn=knn.top1, linear=linear.top1, views=0, minutes=0.0)


def _ingest(archive: Path, out: Path, images: int | None) -> None:
    """Ingests the archive; of the training images only the first few of each class, if asked."""
    with tempfile.TemporaryDirectory() as unpacked:
        root = Path(unpacked)
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
        if images is not None:
            classes = sorted(path for path in _split(root, "train").iterdir() if path.is_dir())
            for folder in classes:
                for file in sorted(folder.iterdir())[images // len(classes) :]:
                    file.unlink()
        ingest(_split(root, "train").parent, out, console=Console(quiet=True))


def _split(root: Path, name: str) -> Path:
    """The folder of a split, wherever the archive has it."""
    return next(path for path in sorted(root.rglob(name)) if path.is_dir())


def _table(scores: Mapping[str, list[Score]], options: argparse.Namespace) -> Table:
    images = "all" if options.images is None else f"{options.images:,}"
    config = config_of("coke", options.epochs, options.batch_size, 0, options.images)
    table = Table(
        title=f"CIFAR-10, {images} images, {options.epochs} epochs, "
        f"batch {config.data.batch_size}, {config.model.network}, heads of "
        f"{' + '.join(map(str, config.clustering.n_clusters))}, "
        f"{len(os.sched_getaffinity(0))} cores for {options.jobs} training(s) at a time, "
        f"{date.today()}"
    )
    table.add_column("method")
    for name in ("seeds", "views seen per image", "k-NN top-1", "linear top-1", "minutes"):
        table.add_column(name, justify="right")
    for method, runs in scores.items():
        table.add_row(
            method,
            str(len(runs)),
            str(runs[0].views),
            _mean_and_spread([s.knn for s in runs]),
            _mean_and_spread([s.linear for s in runs]),
            f"{statistics.mean(s.minutes for s in runs):.1f}",
        )
    return table


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="training images; all 50,000 if unset")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, help="the preset's if unset")
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=METHODS,
        help=f"comma-separated, each with its own :SEEDS or without, of {', '.join(METHODS)}; all "
        "if unset",
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, on equal cores")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    seeds = {}
    for named in options.methods:
        name, _, own = named.partition(":")
        if name not in METHODS:
            parser.error(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
        seeds[name] = int(own or options.seeds)
        if seeds[name] < 1:
            parser.error(f"{named!r} asks for {seeds[name]} seeds; give 1 or more")
    if not 1 <= options.jobs <= len(os.sched_getaffinity(0)):
        parser.error(
            f"--jobs is {options.jobs}; give 1 to {len(os.sched_getaffinity(0))}, a core each"
        )
    options.methods = seeds
    return options


if __name__ == "__main__":
    main()
