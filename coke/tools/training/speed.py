"""How long an epoch takes here, measured on steps of it; and how many epochs fit a time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from coke.config.config import Config
from coke.distributed.process_group import on_main
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.training.layer_randomness import own_layer_randomness
from coke.tools.training.learner import Learner, Place
from coke.tools.training.training_loader import training_loader

_WARM_UP = 2  # steps that are not counted: kernels are chosen, the loader's queue fills
_SECONDS = 5.0  # of a measurement, and at least so many steps:
_STEPS = 3
#: Share of the time for epochs: checkpoints, probes and their records take the rest.
_FOR_EPOCHS = 0.95
MOST_EPOCHS = 1_000


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds per epoch: of the scan, and of training on views of the first and the last size."""

    scan: float
    first: float
    last: float

    def epoch(self, config: Config) -> float:
        """Seconds of an epoch, mean over a run: its views grow, and time with their pixels."""
        start, end = (config.recipes_at(e)[0].size ** 2 for e in (1, config.optimizer.epochs))
        if start == end:
            return self.last
        epochs = range(1, config.optimizer.epochs + 1)
        mean = sum(config.recipes_at(e)[0].size ** 2 for e in epochs) / len(epochs)
        return self.first + (mean - start) / (end - start) * (self.last - self.first)

    def epochs_within(self, hours: float, config: Config) -> int:
        """Whole epochs, at least 1, that fit the time beside the scan."""
        left = _FOR_EPOCHS * hours * 3600 - self.scan
        return min(MOST_EPOCHS, max(1, int(left / self.epoch(config))))


def measure_speed(config: Config, index: ImageIndex, device: torch.device) -> Speed:
    """Times a few steps of a run that is then forgotten: of the scan, and of training.

    Raises:
        ValueError: the settings do not fit, or an image cannot be decoded.
    """
    learner = Learner.build(config, n_ids=len(index), n_points=index.n_live, device=device)
    with own_layer_randomness(device):
        scan = _seconds(config, learner, index, epoch=0)
        first = _seconds(config, learner, index, epoch=1)
        grows = config.recipes_at(1) != config.recipes_at(config.optimizer.epochs)
        last = _seconds(config, learner, index, config.optimizer.epochs) if grows else first
    return Speed(scan=scan, first=first, last=last)


def _seconds(config: Config, learner: Learner, index: ImageIndex, epoch: int) -> float:
    """Seconds of a whole epoch, from some of its steps; rank 0 tells all ranks."""
    loader = training_loader(config, index, config.recipes_at(epoch), learner.device)
    steps = loader.steps_per_epoch
    warm_up = min(_WARM_UP, steps - 1)
    started, images = time.perf_counter(), 0
    for step, batch in enumerate(loader.epoch(epoch)):
        place = Place(epoch=epoch, step=step, steps=steps)
        taken = learner.scan(batch, place) if epoch == 0 else learner.step(batch, place)
        bool(taken.valid)  # waits for the device
        if step + 1 == warm_up:
            started, images = time.perf_counter(), 0
            continue
        images += sum(batch.sizes)
        passed = time.perf_counter() - started
        enough = step + 1 - warm_up >= _STEPS and passed >= _SECONDS
        if on_main(lambda enough=enough: enough):  # type: ignore[misc]
            break
    passed = time.perf_counter() - started
    return on_main(lambda: passed * loader.samples_per_epoch / images)
