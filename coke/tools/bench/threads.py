"""How to split a CPU's cores between the loader and the step: by measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from coke.tools.bench.timing import Spread, Turns


@dataclass(frozen=True, kw_only=True)
class ThreadSplit:
    """One split, and the images per second of training with it."""

    loader: int
    step: int
    rate: Spread

    @property
    def command(self) -> str:
        """How a training run is given this split."""
        return f"OMP_NUM_THREADS={self.step} coke train ... --set machine.threads={self.loader}"


def splits(cores: int) -> list[tuple[int, int]]:
    """Pairs of threads (loader, step) worth a try, without repetitions.

    Both with all cores leaves the split to the operating system; the others keep a part to
    themselves, so that neither waits for a core the other one has.
    """
    tried = {(cores, cores)}
    for loader in {1, cores // 4, cores // 2, cores - cores // 4, cores}:
        loader = min(max(loader, 1), cores)
        tried |= {(loader, max(cores - loader, 1)), (loader, cores)}
    return sorted(tried)


def tune(
    rate_with: Callable[[int, float], float], cores: int, turns: Turns
) -> tuple[ThreadSplit, ...]:
    """Times training with each split; the best comes first.

    Args:
        rate_with: images per second of training with so many loader threads, measured for so many
            seconds; the step's threads are set here.
        cores: of this process.
    """
    before = torch.get_num_threads()
    known = {f"{a} loader threads, {b} of the step": (a, b) for a, b in splits(cores)}
    measured: dict[str, list[float]] = {name: [] for name in known}
    try:
        for name in turns.of(known):
            loader, step = known[name]
            torch.set_num_threads(step)
            measured[name].append(rate_with(loader, turns.seconds))
    finally:
        torch.set_num_threads(before)
    found = [
        ThreadSplit(loader=known[name][0], step=known[name][1], rate=Spread.of(rates))
        for name, rates in measured.items()
    ]
    return tuple(sorted(found, key=lambda split: -split.rate.median))
