"""``coke bench-epoch``: how long an ImageNet epoch takes on this machine, and what limits it."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from coke.config import Config
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.index import ImageIndex, find_split
from coke.pipeline.loader import Batch, Loader, build_loader
from coke.tools.bench.advice import advise
from coke.tools.bench.coke_step import STEP_STAGES, CokeStep
from coke.tools.bench.loading_stages import LOADING_STAGES, LoadingStages
from coke.tools.bench.memory import (
    Memory,
    held_beside_torch,
    largest_batch_that_fits,
    parse_bytes,
    peak_bytes,
)
from coke.tools.bench.methods import measure_methods
from coke.tools.bench.page import write_page
from coke.tools.bench.paper import project
from coke.tools.bench.report import save_json, show
from coke.tools.bench.result import EpochBench, Stage
from coke.tools.bench.threads import ThreadSplit, tune
from coke.tools.bench.timing import Span, Spread, StageClock, images_per_second, stage_medians

#: What a step of training does before the stages of :data:`STEP_STAGES`.
WAIT, COPY = "wait for the loader", "copy"
_TIMELINE_STEPS = 8


def bench_epoch(
    config: Config,
    data: str | Path,
    *,
    seconds: float = 10.0,
    rounds: int = 3,
    gpus: int = 1,
    peers: bool = False,
    tune_threads: bool = False,
    memory_budget: str = "16GiB",
    json_file: Path | None = None,
    html_file: Path | None = None,
    console: Console | None = None,
) -> EpochBench:
    """Times every stage of training alone and together, and says what it makes of them.

    Each round times the loader's stages, the loader, the step on synthetic data, and training, one
    after the other, so that a machine whose speed drifts drifts for all of them. The step includes
    clustering with a label store of ImageNet's size.

    Args:
        config: what to train with; see the presets.
        data: a data set; a small one is read again and again.
        seconds: how long each measurement takes in each round, after three batches of warm-up.
        gpus: how many devices like this one to project an ImageNet epoch for.
        peers: also time MoCo-v2, SwAV and CoKe's other forms side by side.
        tune_threads: also time training with different splits of the cores.
        memory_budget: what the peak of a device is held against, such as ``16GiB``.
        json_file, html_file: where the result is saved, and shown as a page; replaced if there.

    Raises:
        ValueError: settings or data do not fit.
    """
    _check_arguments(seconds, rounds, gpus, (json_file, html_file))
    budget = parse_bytes(memory_budget)
    console = console or Console()
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.cache_dir or None)
    if index.n_live < config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size}, but {index.folder} has {index.n_live} images: "
            "give a smaller --batch-size"
        )
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    with console.status("timing") as status:
        measured = _Measurement(config, index, device, precision)
        measured.run(seconds, rounds, status.update)
        memory = _memory(config, device, precision, budget)
        threads = _tuned(measured, seconds, rounds, status.update) if tune_threads else ()
        methods = (
            measure_methods(
                config, index, device, precision, seconds=seconds, rounds=rounds,
                progress=status.update,
            )
            if peers
            else ()
        )  # fmt: skip
    loader, step, both = (Spread.of(r) for r in (measured.loaded, measured.stepped, measured.trained))
    stages = measured.stages()
    limited_by = "loader" if loader.median < step.median else "step"
    limiting_stage = _longest(stages, limited_by)
    cores = len(os.sched_getaffinity(0))
    bench = EpochBench(
        settings=_settings(config, index, device, precision, cores, seconds, rounds),
        stages=stages,
        loader=loader,
        step=step,
        both=both,
        limited_by=limited_by,
        limiting_stage=limiting_stage,
        share_of_limit=both.median / min(loader.median, step.median),
        share_of_ceiling=both.median / step.median,
        projection=project(
            both.median,
            gpus=gpus,
            device=_device_name(device),
            cores=cores,
            batch_size=config.batch_size,
            image_kilobytes=float(index.rows["length"].mean()) / 1000,
        ),
        advice=advise(
            limiting_stage,
            config,
            precision=precision,
            cores=cores,
            shorter_side=float(
                np.median(np.minimum(index.rows["height"], index.rows["width"]))
            ),
        ),
        memory=memory,
        methods=methods,
        threads=threads,
        timeline=measured.timeline,
    )
    show(bench, console)
    if json_file is not None:
        save_json(bench, json_file)
    if html_file is not None:
        write_page(bench, html_file)
    return bench


class _Measurement:
    """Loader, step and clocks of one benchmark, and what they measured so far."""

    def __init__(
        self, config: Config, index: ImageIndex, device: torch.device, precision: str
    ) -> None:
        self._config, self._index, self._device = config, index, device
        self._recipes = [config.view] * config.views
        self._clock = StageClock(device)
        self._training = CokeStep(config, device, precision, self._clock)
        self._loading = LoadingStages(config, index, self._recipes, device)
        self._stream = _loader(config, index, device).epochs()
        self._synthetic = [
            torch.randn(config.batch_size, 3, r.size, r.size, device=device).contiguous(
                memory_format=torch.channels_last
            )
            for r in self._recipes
        ]
        self._synthetic_ids = torch.arange(config.batch_size, device=device)
        self.loaded: list[float] = []
        self.stepped: list[float] = []
        self.trained: list[float] = []
        self.timeline: tuple[tuple[Span, ...], ...] = ()
        self._alone: dict[str, list[float]] = defaultdict(list)
        self._together: dict[str, list[float]] = defaultdict(list)

    def run(self, seconds: float, rounds: int, progress: Callable[[str], None]) -> None:
        """Times everything in turns, ``rounds`` times."""
        for r in range(1, rounds + 1):
            progress(f"round {r} of {rounds}: the loader's stages")
            for name, milliseconds in self._loading.milliseconds(seconds).items():
                self._alone[name].append(milliseconds)
            progress(f"round {r} of {rounds}: loader alone")
            self.loaded.append(images_per_second(self._load, seconds, self._device))
            progress(f"round {r} of {rounds}: step on synthetic data")
            self.stepped.append(self._timed(self._step, seconds, self._alone))
            progress(f"round {r} of {rounds}: training")
            self.trained.append(self._timed(self._train, seconds, self._together))

    def stages(self) -> tuple[Stage, ...]:
        """Every stage, in the order of a batch's way; the loader as a whole after its own."""
        batch = self._config.batch_size
        self._alone["loader"] = [1000 * batch / rate for rate in self.loaded]
        names = [(name, "loader") for name in (*LOADING_STAGES, "loader")]
        names += [(name, "step") for name in (WAIT, COPY, *STEP_STAGES)]
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
        config = replace(self._config, threads=threads)
        stream = _loader(config, self._index, self._device).epochs()
        rate = images_per_second(lambda: self._train(stream), seconds, self._device)
        self._clock.clear()
        return rate

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


def _loader(config: Config, index: ImageIndex, device: torch.device) -> Loader:
    return build_loader(
        index,
        [config.view] * config.views,
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        window=config.window,
        cache_gb=config.cache_gb,
        drop_ragged=True,
        device=str(device),
        threads=config.threads or None,
        backend=config.loader,
    )


def _memory(config: Config, device: torch.device, precision: str, budget: int) -> Memory:
    peak = peak_bytes(device)  # first: the search goes higher
    if device.type != "cuda":
        return Memory(peak=peak, of="process", budget=budget, largest_batch=None)
    largest = largest_batch_that_fits(
        config, device, precision, budget, beside=held_beside_torch(device)
    )
    return Memory(peak=peak, of="GPU", budget=budget, largest_batch=largest)


def _tuned(
    measured: _Measurement, seconds: float, rounds: int, progress: Callable[[str], None]
) -> tuple[ThreadSplit, ...]:
    cores = len(os.sched_getaffinity(0))
    return tune(measured.rate_with, cores, seconds=seconds, rounds=rounds, progress=progress)


def _longest(stages: tuple[Stage, ...], part: str) -> str:
    """The longest stage of a part when alone; the loader as a whole where its are not known."""
    times = {s.name: s.alone.median for s in stages if s.part == part and s.alone is not None}
    if len(times) > 1:
        times.pop("loader", None)
    if set(times) == {"bytes by id"}:  # the loader decodes and augments in one
        return "loader"
    return max(times, key=lambda name: times[name])


def _settings(
    config: Config,
    index: ImageIndex,
    device: torch.device,
    precision: str,
    cores: int,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    return {
        "date": str(date.today()),
        "device": _device_name(device),
        "cores": cores,
        "torch threads": torch.get_num_threads(),
        "loader threads": config.threads or cores,
        "preset": config.preset,
        "backbone": f"ResNet-{config.model.depth}, width {config.model.width}",
        "views": config.views,
        "size": config.view.size,
        "batch size": config.batch_size,
        "precision": precision,
        "clusters": list(config.clustering.n_clusters),
        "dual rule": config.clustering.dual_rule,
        "loader": config.loader,
        "data": f"{index.folder.name}: {index.n_live:,} images",
        "torch": torch.__version__,
        "seconds per measurement": seconds,
        "rounds": rounds,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((ln.partition(":")[2].strip() for ln in lines if "model name" in ln), "")
    except OSError:
        model = ""
    return f"CPU ({model or platform.processor() or platform.machine()})"


def _check_arguments(
    seconds: float, rounds: int, gpus: int, files: tuple[Path | None, ...]
) -> None:
    if seconds <= 0 or rounds < 1:
        raise ValueError(f"seconds is {seconds} and rounds {rounds}; both must be positive")
    if gpus < 1:
        raise ValueError(f"gpus is {gpus}; give the number of devices to project for, 1 or more")
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{file} cannot be written: there is no folder {file.parent}")
