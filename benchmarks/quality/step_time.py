"""What a training step of each method costs, in CPU seconds, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.grid import METHODS, Cell, config_of
from benchmarks.quality.training import PEERS
from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.pipeline.loading.loader import Batch
from coke.tools.bench.machine import device_name
from coke.tools.training.learner import Learner, Place
from coke.tools.training.training_loader import training_loader

_WARM_UP = 2  # rounds that are not counted


def step_seconds(methods: Sequence[str], data: Path, images: int, rounds: int) -> dict[str, Any]:
    """Seconds of the process for a step at full size, decoding and augmentation included.

    Every method takes one step in each round, so that a machine whose speed drifts drifts for all.

    Returns: a record with the median of each method by its name.
    """
    index = ImageIndex(find_split(data, ("train",)))
    steps = {name: _stepper(name, index, images) for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_ in range(_WARM_UP + rounds):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if round_ >= _WARM_UP:
                seconds[name].append(time.process_time() - started)
    return {
        "seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "rounds": rounds,
        "images": images,
        "cpu": device_name(torch.device("cpu")),
        "date": str(date.today()),
    }


def _stepper(name: str, index: ImageIndex, images: int) -> Callable[[], Tensor | None]:
    """A function that decodes one batch and takes one step of a method."""
    config = config_of(Cell(method=name, images=images, epochs=20, seed=0))
    recipes = config.recipes_at(config.optimizer.epochs)
    batches = training_loader(config, index, recipes, torch.device("cpu")).epochs()
    peer = METHODS[name].peer
    train = _peer_step(peer, config) if peer else _coke_step(config, index)
    return lambda: train(next(batches))


def _peer_step(name: str, config: Config) -> Callable[[Batch], Tensor]:
    model = build_model(config.model, config.seed).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    peer = PEERS[name](model, config, "fp32", 1)
    return lambda batch: peer.step(batch.views, batch.ids)


def _coke_step(config: Config, index: ImageIndex) -> Callable[[Batch], Tensor | None]:
    learner = Learner.build(
        config.changed(machine={"precision": "fp32"}),
        n_ids=len(index),
        n_points=index.n_live,
        device=torch.device("cpu"),
    )
    every_id = torch.arange(len(index))
    learner.clustering.epoch = 1  # as after the scan
    learner.clustering.set_labels(torch.stack([every_id % k for k in config.clustering.n_clusters]))
    place = Place(epoch=1, step=0, steps=10_000)  # no features are kept to measure their rank
    return lambda batch: learner.step(batch, place).loss
