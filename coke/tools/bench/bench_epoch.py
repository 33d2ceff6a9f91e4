"""``coke bench-epoch``: how long an ImageNet epoch takes on this machine, and what limits it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from coke.config.config import Config
from coke.config.wishes import Wishes
from coke.files.byte_size import parse_bytes
from coke.model.precision import resolve_device, resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.bench.advice import advise
from coke.tools.bench.bench_page import write_bench_page
from coke.tools.bench.limit import find_limit
from coke.tools.bench.machine import described, device_name
from coke.tools.bench.measurement import Measurement, longest_stage
from coke.tools.bench.memory import (
    Memory,
    held_beside_torch,
    largest_batch_that_fits,
    peak_bytes,
)
from coke.tools.bench.methods import MethodTime, measure_methods
from coke.tools.bench.paper import project
from coke.tools.bench.report import save_json, show
from coke.tools.bench.result import EpochBench
from coke.tools.bench.threads import ThreadSplit, tune
from coke.tools.bench.timing import Turns
from coke.tools.page.render import check_pages
from coke.tools.training.memory_check import MemoryCheck, check_memory
from coke.tools.training.settle import settled


def bench_epoch(
    config: Config | Wishes,
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
    """Times every stage of training alone and together, and draws conclusions.

    Each round times the loader's stages, the loader, the step on synthetic data, and training, one
    after the other, so that a change of the machine's speed reaches all of them. The step includes
    clustering with a label store of ImageNet's size.

    Args:
        config: what to train with; see the presets. Wishes become what ``coke train`` would choose.
        data: a data set; a small one is read again and again.
        seconds: length of each measurement in each round, after three batches of warm-up.
        gpus: number of devices like this one to project an ImageNet epoch for.
        peers: also time MoCo-v2, SwAV and CoKe's other forms side by side.
        tune_threads: also time training with different splits of the cores.
        memory_budget: memory that a device's peak is compared with, e.g. ``16GiB``.
        json_file, html_file: where to save the result, and a page of it; replaced if there.

    Raises:
        ValueError: settings or data do not fit.
    """
    _check_arguments(seconds, rounds, gpus)
    if isinstance(config, Config):
        _check_peers(config, peers)
    _check_writable("--json", json_file)
    _check_writable("--html", html_file)
    if html_file is not None:
        check_pages()
    budget = parse_bytes(memory_budget)
    console = console or Console()
    index = ImageIndex(find_split(data, ("train",)), cache_dir=config.machine.cache_dir or None)
    device = resolve_device(config.machine.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events and streams are those of the current device
    if isinstance(config, Wishes):
        config = settled(config, index, device, console)
    _check_peers(config, peers)
    _check_fits(config, index, device)
    precision = resolve_precision(config.machine.precision, device)
    cores = len(os.sched_getaffinity(0))
    methods: tuple[MethodTime, ...] = ()
    threads: tuple[ThreadSplit, ...] = ()
    with console.status("timing") as status:
        turns = Turns(seconds=seconds, rounds=rounds, progress=status.update)
        measured = Measurement(config, index, device, precision)
        measured.run(turns)
        peak = peak_bytes(device)  # first: the measurements below go higher
        if tune_threads:
            threads = tune(measured.rate_with, cores, turns)
        measured.release_step()
        status.update("the largest batch that fits")
        memory = _memory(config, device, precision, budget, peak)
        if peers:
            methods = measure_methods(config, index, device, precision, turns)
    limit = _limit(measured, config, index, device, precision, cores, tuned=tune_threads)
    bench = EpochBench(
        settings={
            **described(config, index, device, precision, cores),
            "seconds per measurement": seconds,
            "rounds": rounds,
        },
        stages=measured.stages(),
        loader=measured.loader,
        step=measured.step,
        both=measured.both,
        share_of_ceiling=measured.both.median / measured.step.median,
        projection=project(
            measured.both.median,
            gpus=gpus,
            config=config,
            precision=precision,
            device=device_name(device),
            cores=cores,
            image_kilobytes=float(index.rows["length"].mean()) / 1000,
        ),
        memory=memory,
        methods=methods,
        threads=threads,
        timeline=measured.timeline,
        **limit,
    )
    show(bench, console)
    if json_file is not None:
        save_json(bench, json_file)
    if html_file is not None:
        write_bench_page(bench, html_file)
    return bench


def _memory(config: Config, device: torch.device, precision: str, budget: int, peak: int) -> Memory:
    """The peak, and on a GPU the largest batch that fits the budget."""
    if device.type != "cuda":
        return Memory(peak=peak, of="process", budget=budget, largest_batch=None)
    beside = held_beside_torch(device)
    largest = largest_batch_that_fits(config, device, precision, budget, beside=beside)
    return Memory(peak=peak, of="GPU", budget=budget, largest_batch=largest)


def _limit(
    measured: Measurement,
    config: Config,
    index: ImageIndex,
    device: torch.device,
    precision: str,
    cores: int,
    *,
    tuned: bool,
) -> dict[str, Any]:
    """Fields of :class:`EpochBench`: the slower part, its longest stage, and advice about it."""
    loader, step, both = (rate.median for rate in (measured.loader, measured.step, measured.both))
    limit = find_limit(loader, step, both, device.type)
    limiting = {part: longest_stage(measured.stages(), part) for part in ("loader", "step")}
    stored = np.minimum(index.rows["height"], index.rows["width"])
    return {
        "limited_by": limit.slower,
        "limiting_stage": limiting[limit.slower],
        "shared_cores": limit.shared_cores,
        "share_of_limit": limit.share,
        "advice": advise(
            tuple(limiting.values()) if limit.shared_cores else (limiting[limit.slower],),
            config,
            precision=precision,
            cores=cores,
            tuned=tuned,
            shorter_side=float(np.median(stored)),
        ),
    }


def _check_arguments(seconds: float, rounds: int, gpus: int) -> None:
    if seconds <= 0 or rounds < 1:
        raise ValueError(f"seconds is {seconds} and rounds {rounds}; both must be positive")
    if gpus < 1:
        raise ValueError(f"gpus is {gpus}; give the number of devices to project for, 1 or more")


def _check_peers(config: Config, peers: bool) -> None:
    if peers and config.optimizer.accumulate > 1:
        raise ValueError(
            f"optimizer.accumulate is {config.optimizer.accumulate}, but --peers compares steps of "
            "whole batches: leave it at 1, with a smaller --batch-size if memory is short"
        )


def _check_fits(config: Config, index: ImageIndex, device: torch.device) -> None:
    """Refuses a batch that the data set does not fill, and steps that the memory does not hold."""
    if index.n_live < config.data.batch_size:
        raise ValueError(
            f"data.batch_size is {config.data.batch_size}, but {index.folder} has {index.n_live} "
            "images: give a smaller --batch-size"
        )
    check_memory(MemoryCheck.here(index, config.machine.precision, device), config)


def _check_writable(option: str, file: Path | None) -> None:
    """Refuses a file, before the measurement, that could not be written after it."""
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"{option} {file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise ValueError(
            f"{option} {file} cannot be written: there is no folder {file.parent}; create it, or "
            "name another file"
        )
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(
            f"{option} {file} cannot be written: this user may not; name a file elsewhere"
        )
