"""What is timed in turns: the loader's stages, the loader, the step, and training with both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Batch
from coke.tools.bench.coke_step import STEP_STAGES, CokeStep
from coke.tools.bench.loading_stages import LOADING_STAGES, LoadingStages
from coke.tools.bench.memory import release_unused
from coke.tools.bench.result import Stage
from coke.tools.bench.synthetic_views import synthetic_views
from coke.tools.bench.timing import (
    Span,
    Spread,
    StageClock,
    Turns,
    images_per_second,
    stage_medians,
)
from coke.tools.training.training_loader import training_loader

#: What a step of training does before the stages of :data:`STEP_STAGES`.
WAIT, COPY = "wait for the loader", "copy"
_TIMELINE_STEPS = 8


class Measurement:
    """Loader, step and clocks of one benchmark, and what they measured so far."""

    def __init__(
        self, config: Config, index: ImageIndex, device: torch.device, precision: str
    ) -> None:
        self._config, self._index, self._device = config, index, device
        self._recipes = config.recipes_at(config.optimizer.epochs)
        self._clock = StageClock(device)
        self._training = CokeStep(config, device, precision, self._clock)
        self._stream = _stream(config, index, device)
        self._synthetic = synthetic_views(self._recipes, config.data.batch_size, device)
        self._synthetic_ids = torch.arange(config.data.batch_size, device=device)
        self._loaded: list[float] = []
        self._stepped: list[float] = []
        self._trained: list[float] = []
        self.timeline: tuple[tuple[Span, ...], ...] = ()
        self._alone: dict[str, list[float]] = defaultdict(list)
        self._together: dict[str, list[float]] = defaultdict(list)

    def run(self, turns: Turns) -> None:
        """Times everything."""
        seconds = turns.seconds
        loading = LoadingStages(self._config, self._index, self._recipes, self._device)
        for what in turns.of(
            ("the loader's stages", "loader", "step on synthetic data", "training")
        ):
            if what == "the loader's stages":
                for name, milliseconds in loading.milliseconds(seconds).items():
                    self._alone[name].append(milliseconds)
            elif what == "loader":
                self._loaded.append(images_per_second(self._load, seconds, self._device))
            elif what == "training":
                self._trained.append(self._timed(self._train, seconds, self._together))
            else:
                self._stepped.append(self._timed(self._step, seconds, self._alone))
        del loading  # training has no such pipelines: its peak is to be told without them
        release_unused(self._device)

    @property
    def loader(self) -> Spread:
        """Images per second of the loader alone."""
        return Spread.of(self._loaded)

    @property
    def step(self) -> Spread:
        """Images per second of the step on synthetic data."""
        return Spread.of(self._stepped)

    @property
    def both(self) -> Spread:
        """Images per second of training."""
        return Spread.of(self._trained)

    def stages(self) -> tuple[Stage, ...]:
        """Every stage, in the order of a batch's way; loader and step as wholes after their own."""
        batch = self._config.data.batch_size
        self._alone["loader"] = [1000 * batch / rate for rate in self._loaded]
        self._alone["step"] = [1000 * batch / rate for rate in self._stepped]
        self._together["step"] = [1000 * batch / rate for rate in self._trained]
        names = [(name, "loader") for name in (*LOADING_STAGES, "loader")]
        names += [(name, "step") for name in (WAIT, COPY, *STEP_STAGES, "step")]
        return tuple(
            Stage(
                name=name,
                part=part,
                alone=Spread.of(self._alone[name]) if self._alone[name] else None,
                together=Spread.of(self._together[name]) if self._together[name] else None,
            )
            for name, part in names
            if self._alone[name] or self._together[name]
        )

    def rate_with(self, threads: int, seconds: float) -> float:
        """Images per second of training with another number of loader threads."""
        config = self._config.changed(machine={"threads": threads})
        stream = _stream(config, self._index, self._device)
        rate = images_per_second(lambda: self._train(stream), seconds, self._device)
        self._clock.clear()
        return rate

    def release_step(self) -> None:
        """Lets go of network, optimiser, clustering and synthetic views, for a search that brings
        its own beside the loader; nothing is measured after it."""
        del self._training, self._synthetic
        release_unused(self._device)

    def _timed(
        self, work: Callable[[], int], seconds: float, times: dict[str, list[float]]
    ) -> float:
        rate = images_per_second(work, seconds, self._device, after_warm_up=self._clock.clear)
        steps = self._clock.steps()
        for name, milliseconds in stage_medians(steps).items():
            times[name].append(milliseconds)
        if times is self._together:
            self.timeline = tuple(tuple(spans) for spans in steps[:_TIMELINE_STEPS])
        return rate

    def _load(self) -> int:
        return len(next(self._stream).ids)

    def _step(self) -> int:
        self._clock.start()
        self._training.step(self._synthetic, self._synthetic_ids)
        return len(self._synthetic_ids)

    def _train(self, stream: Iterator[Batch] | None = None) -> int:
        self._clock.start()
        batch = next(stream or self._stream)
        self._clock.mark(WAIT)
        views = [view.to(self._device, non_blocking=True) for view in batch.views]
        ids = batch.ids.to(self._device, non_blocking=True)
        self._clock.mark(COPY)
        self._training.step(views, ids)
        return len(ids)


def longest_stage(stages: tuple[Stage, ...], part: str) -> str:
    """The longest stage of a part when alone; the loader as a whole where its are not known."""
    own = [s for s in stages if s.part == part and not s.whole]
    times = {s.name: s.alone.median for s in own if s.alone is not None}
    if set(times) <= {"bytes by id"}:  # the loader decodes and augments in one
        return part
    return max(times, key=lambda name: times[name])


def _stream(config: Config, index: ImageIndex, device: torch.device) -> Iterator[Batch]:
    """Full batches without end, of the views of the last epoch."""
    full = config.changed(data={"drop_ragged": True})
    return training_loader(full, index, config.recipes_at(config.optimizer.epochs), device).epochs()
