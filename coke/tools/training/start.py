"""What is asked and checked before a run starts, so that nothing is refused after work began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from coke.config.config import Config
from coke.config.machine import MachineConfig
from coke.config.wishes import Wishes
from coke.distributed.process_group import device_of_this_rank, on_main, world_size
from coke.files.byte_size import show_bytes
from coke.model.precision import resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.tools.runs.record import EpochRecord
from coke.tools.runs.run_folder import AUTO, RESUME, START, RunFolder
from coke.tools.training.memory_check import MemoryCheck, check_memory
from coke.tools.training.metric_sinks import check_wandb

#: What becomes of a run folder.
FRESH, RESUMED, COMPLETE = "fresh", "resumed", "complete"


def resume_mode(resume: bool | str) -> str:
    """``resume`` of :func:`coke.train` as one of START, RESUME and AUTO.

    Raises:
        ValueError: it is none of them.
    """
    mode = resume if isinstance(resume, str) else (RESUME if resume else START)
    if mode not in (START, RESUME, AUTO):
        raise ValueError(f"resume is {resume!r}; give True, False or {AUTO!r}")
    return mode


def check_options(
    config: Config | Wishes,
    mode: str,
    init_from: str | Path | None,
    probe_data: str | Path | None,
    wandb: str | None,
    extend: str | Path | None = None,
) -> None:
    """Refuses options that do not go together, or that would have no effect."""
    if mode == RESUME and init_from is not None:
        raise ValueError("--init-from starts a new run, --resume continues one: give one of them")
    if extend is not None and (mode == RESUME or init_from is not None):
        other = "--resume continues one" if mode == RESUME else "--init-from takes only weights"
        raise ValueError(f"--extend starts a new run, {other}: give one of them")
    if probe_data is not None and config.run.probe_every == 0:
        raise ValueError("--probe-data needs --probe-every N: how many epochs between two probes")
    if wandb is not None:
        check_wandb()


def training_device(machine: MachineConfig) -> torch.device:
    """The device of this rank; a GPU becomes torch's current one.

    Raises:
        ValueError: this machine does not have it.
    """
    device = resolve_device(device_of_this_rank(machine.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events and streams are those of the current device
    return device


def open_data(
    data: str | Path,
    ids: Any,
    machine: MachineConfig,
    *,
    continued: RunFolder | None,
) -> ImageIndex:
    """The images to train on.

    Args:
        ids: the chosen ones, see :meth:`ImageIndex.subset`; None for all.
        continued: a run whose ids are taken if none are given; None, or no run, for a new one.

    Raises:
        ValueError: no such data set, or ids that do not fit it.
    """
    index = ImageIndex(find_split(data, ("train",)), cache_dir=machine.cache_dir or None)
    if ids is not None:
        return index.subset(ids)
    if continued is None or not continued.exists:
        return index
    return continued.subset_of(index)


def check_fits(
    config: Config,
    index: ImageIndex,
    device: torch.device,
    console: Console,
    *,
    resumed: bool = False,
) -> None:
    """Refuses a batch size that this data set, or settings that the memory here does not allow."""
    _check_batches(config, index.n_live)
    precision = config.machine.precision
    estimate = on_main(
        lambda: check_memory(MemoryCheck.here(index, precision, device), config, resumed=resumed)
    )
    if estimate is not None and config.machine.memory_budget:
        console.print(
            f"memory of a rank, estimated: {show_bytes(estimate.total)} ({estimate})",
            highlight=False,
        )


def decide(run: RunFolder, mode: str, config: Config, index: ImageIndex) -> str:
    """Whether a run is FRESH, RESUMED or COMPLETE; rank 0 looks, all ranks get its answer.

    Raises:
        ValueError: folder, settings or data set do not allow what is asked for; or ``mode`` is
            RESUME and the run is complete.
    """
    if not on_main(lambda: run.resumes(mode, config, index)):
        return FRESH
    if not on_main(lambda: run.is_complete(config.optimizer.epochs)):
        return RESUMED
    if mode == RESUME:
        raise ValueError(complete_line(run, config))
    return COMPLETE


def complete_line(run: RunFolder, config: Config) -> str:
    """The line that tells that nothing is left to do."""
    return f"run {run.path} is complete: all {config.optimizer.epochs} epochs are done"


def last_record(run: RunFolder) -> EpochRecord:
    """The record of the last epoch. Raises ValueError if the metrics are gone."""
    records = run.records()
    if not records:
        raise ValueError(f"run {run.path} is complete, but {run.metrics} is missing or empty")
    return EpochRecord.of(records[-1])


def _check_batches(config: Config, n: int) -> None:
    """Refuses batches that batch norm cannot train on: it needs two images in every piece."""
    batch, pieces, ranks = config.data.batch_size, config.optimizer.accumulate, world_size()
    piece = batch // pieces
    if piece % ranks:
        raise ValueError(
            f"data.batch_size is {batch}: {ranks} ranks with optimizer.accumulate {pieces} need a "
            f"multiple of {ranks * pieces}"
        )
    if n < 2:
        raise ValueError(f"the data set has {n} image; training needs at least 2")
    if not config.data.drop_ragged and n % piece == 1:
        what = "batch" if pieces == 1 else f"of {pieces} pieces a batch"
        raise ValueError(
            f"data.batch_size is {batch}: with {n} images the last {what} has 1, too few for batch "
            "norm; use another batch size, or --set data.drop_ragged=true"
        )
    if config.data.drop_ragged and n < batch:
        raise ValueError(
            f"data.batch_size is {batch} but the data set has {n} images, and data.drop_ragged "
            "leaves a short batch out: use a smaller batch size"
        )
