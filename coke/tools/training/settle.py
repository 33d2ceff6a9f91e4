"""Wishes become settings: the facts, the choice, and whether it fits the memory and the time."""

from __future__ import annotations

import time
from functools import partial

import torch
from rich.console import Console

from coke.config.auto import Choice, choose
from coke.config.config import Config
from coke.config.facts import DataFacts, DeviceFacts
from coke.config.wishes import AUTO, Wishes
from coke.distributed.process_group import on_main, world_size
from coke.distributed.workers import default_workers
from coke.model.precision import resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.training.data_facts import data_facts
from coke.tools.training.memory_check import MemoryCheck
from coke.tools.training.speed import Speed, measure_speed


def settled(wishes: Wishes, index: ImageIndex, device: torch.device, console: Console) -> Config:
    """The settings that ``auto`` chooses for a data set on this device; it says what and why.

    All ranks get the choice of rank 0. A step that does not fit the memory is taken in pieces. If
    the user gave hours, steps are timed, and the number of epochs is fixed by their speed.

    Raises:
        ValueError: a given setting is wrong, or does not fit.
    """
    choice = on_main(partial(_chosen, wishes, index, device))
    speed = None
    if wishes.hours is not None:
        with console.status("timing the first steps"):
            started = time.perf_counter()
            speed = measure_speed(choice.config, index, device)
            measuring = on_main(lambda: (time.perf_counter() - started) / 3600)
        epochs = speed.epochs_within(max(0.0, wishes.hours - measuring), choice.config)
        pieces = choice.config.optimizer.accumulate
        choice = on_main(partial(_chosen, wishes, index, device, epochs=epochs, pieces=pieces))
    told = [f"preset {AUTO} has chosen (options, --set and --config win):", *choice.lines()]
    console.print("\n".join(told), highlight=False, markup=False, soft_wrap=True)
    if speed is not None and wishes.hours is not None:
        _tell_time(speed, wishes.hours, choice.config, console)
    return choice.config


def _chosen(
    wishes: Wishes,
    index: ImageIndex,
    device: torch.device,
    epochs: int | None = None,
    pieces: int | None = None,
) -> Choice:
    data, here = data_facts(index), device_facts(wishes, device)
    if pieces is None:
        pieces = _pieces(data, here, wishes, index, device)
    return choose(data, here, wishes, epochs=epochs, pieces=pieces)


def device_facts(wishes: Wishes, device: torch.device) -> DeviceFacts:
    """What this run trains on."""
    return DeviceFacts(
        gpu=device.type == "cuda",
        ranks=world_size(),
        cores=default_workers(),
        precision=resolve_precision(wishes.machine.precision, device),
    )


def _pieces(
    data: DataFacts, here: DeviceFacts, wishes: Wishes, index: ImageIndex, device: torch.device
) -> int:
    """Pieces in which a step fits the memory; 1 where none do, which is refused later."""
    config = choose(data, here, wishes).config
    if wishes.given("optimizer.accumulate") is not None:
        return config.optimizer.accumulate
    check = MemoryCheck.here(index, config.machine.precision, device)
    return 1 if check.fits(config) else check.pieces_that_fit(config) or 1


def _tell_time(speed: Speed, hours: float, config: Config, console: Console) -> None:
    seconds = speed.scan + config.optimizer.epochs * speed.epoch(config)
    console.print(
        f"An epoch takes about {_shown(speed.epoch(config))}, all of them {_shown(seconds)}",
        highlight=False,
    )
    if seconds > hours * 3600:
        console.print(
            f"[bold yellow]warning:[/] not even one epoch fits {hours:g} hours",
            highlight=False,
        )


def _shown(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
