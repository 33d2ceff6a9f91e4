"""Whether a run fits the memory there is, before it starts, and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch

from coke.config.config import Config
from coke.distributed.free_memory import FreeMemory, free_memory
from coke.distributed.process_group import world_size
from coke.files.byte_size import parse_bytes, show_bytes
from coke.model.precision import resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.training.memory_bound import memory_bound
from coke.tools.training.memory_estimate import (
    MemoryEstimate,
    estimate_memory,
    largest_rows,
    mean_pixels,
)

#: Share of the free memory that a run may be estimated to take. Estimates were up to 8 % too low
#: (docs/distributed.md), and other processes grow.
USABLE = 0.9


@dataclass(frozen=True, kw_only=True)
class MemoryCheck:
    """The question whether a run fits, for one data set and one rank's device.

    Attributes:
        n_ids, n_points: number of ids, and of those that have an image.
        pixels: of a stored image, mean.
        world: number of ranks.
        precision: resolved.
        free: what the rank may still take; None where the system does not tell. A setting
            ``machine.memory_budget`` stands in its place.
    """

    n_ids: int
    n_points: int
    pixels: float
    world: int
    precision: str
    device: torch.device
    free: FreeMemory | None

    @classmethod
    def here(cls, index: ImageIndex, precision: str, device: torch.device) -> Self:
        """The question for this data set, on this machine as it is now."""
        return cls(
            n_ids=len(index),
            n_points=index.n_live,
            pixels=mean_pixels(index),
            world=world_size(),
            precision=resolve_precision(precision, device),
            device=device,
            free=free_memory(device),
        )

    def estimate(self, config: Config) -> MemoryEstimate:
        """What a rank needs at the largest views, those of the last epoch.

        The scan needs less: it takes the same pieces, of large views only, and keeps no
        activations for a backward pass.
        """
        return estimate_memory(
            config,
            config.recipes_at(config.optimizer.epochs),
            n_ids=self.n_ids,
            pixels=self.pixels,
            world=self.world,
            precision=self.precision,
            device=self.device,
        )

    def limit(self, config: Config) -> float:
        """Bytes that :meth:`needed` may be."""
        if config.machine.memory_budget:
            return parse_bytes(config.machine.memory_budget)
        return float("inf") if self.free is None else USABLE * self.free.size

    def beside(self, config: Config, found: MemoryEstimate) -> MemoryEstimate:
        """The part of an estimate that the limit is for: what the process has is not free now."""
        taken = not config.machine.memory_budget and self.device.type == "cpu"
        return replace(found, process=0) if taken else found

    def needed(self, config: Config, found: MemoryEstimate) -> int:
        """Bytes of :meth:`beside`."""
        return self.beside(config, found).total

    def surely_fits(self, config: Config) -> bool:
        """Whether the run fits, by a bound that takes no time. False says nothing."""
        if config.machine.memory_budget:
            return False  # the user asked for the figures
        bound = memory_bound(
            config,
            config.recipes_at(config.optimizer.epochs),
            n_ids=self.n_ids,
            pixels=self.pixels,
            world=self.world,
        )
        return self.free is None or (bound is not None and bound <= self.limit(config))

    def fits(self, config: Config) -> bool:
        """Whether the run fits."""
        if self.surely_fits(config):
            return True
        return self.needed(config, self.estimate(config)) <= self.limit(config)

    def pieces_that_fit(self, config: Config) -> int | None:
        """The fewest pieces of a step, more than there are, with which it fits; None if none do."""
        found = self.estimate(config)
        grows = found.activations + found.workspace
        _, piece = largest_rows(config, self.n_ids, self.world)
        for pieces in self._more_pieces(config):
            changed = config.changed(optimizer={"accumulate": pieces})
            _, smaller = largest_rows(changed, self.n_ids, self.world)
            less = (1 - smaller / piece) * grows
            if self.needed(config, found) - less <= self.limit(config) and self.fits(changed):
                return pieces
        return None

    def _more_pieces(self, config: Config) -> Iterator[int]:
        """Numbers of pieces above ``accumulate`` that training takes, fewest first."""
        batch = config.data.batch_size
        for pieces in range(config.optimizer.accumulate + 1, batch // 2 + 1):
            alone = self.n_points % (batch // pieces) == 1 and not config.data.drop_ragged
            if batch % (pieces * self.world) == 0 and not alone:  # batch norm needs two images
                yield pieces


def check_memory(
    check: MemoryCheck, config: Config, *, resumed: bool = False
) -> MemoryEstimate | None:
    """The estimate, of a run that fits; None where a quick bound says that it does.

    Args:
        resumed: the run goes on, so that only settings of the machine may change.

    Raises:
        ValueError: it does not fit; the message has the figures, and what would fit.
    """
    if check.surely_fits(config):
        return None
    found = check.estimate(config)
    if check.needed(config, found) <= check.limit(config):
        return found
    remedies = list(_remedies(check, config, resumed))
    if config.machine.memory_budget:
        above = f"more than the memory budget of {config.machine.memory_budget}: {found}"
        own = ""
    else:
        above = f"but there are {check.free}: {check.beside(config, found)}"
        own = ". --memory-budget SIZE allows a rank SIZE, whatever is free"
    if remedies:
        advice = f"It fits with {' or with '.join(remedies)}"
    elif resumed:
        advice = "Use more ranks, or a machine with more memory"
    else:
        advice = "Use a smaller --batch-size, more ranks, or smaller views"
    raise ValueError(
        f"a rank of this run needs about {show_bytes(check.needed(config, found))}, {above}. "
        f"{advice}{own}"
    )


def _remedies(check: MemoryCheck, config: Config, resumed: bool) -> Iterator[str]:
    def shown(changed: Config) -> str:
        return f"({show_bytes(check.needed(changed, check.estimate(changed)))})"

    if not resumed:
        pieces = check.pieces_that_fit(config)
        if pieces is not None:
            changed = config.changed(optimizer={"accumulate": pieces})
            yield f"--accumulate {pieces} {shown(changed)}"
        batch = _smaller_batch(check, config)
        if batch is not None:
            yield f"--batch-size {batch} {shown(config.changed(data={'batch_size': batch}))}"
    if not config.machine.checkpoint_activations:
        changed = config.changed(machine={"checkpoint_activations": True})
        if check.fits(changed):
            yield f"--set machine.checkpoint_activations=true {shown(changed)}"


def _smaller_batch(check: MemoryCheck, config: Config) -> int | None:
    """The largest half, quarter, ... of the batch that fits; None if none does."""
    found, limit = check.estimate(config), check.limit(config)
    grows = found.activations + found.workspace + found.views + found.decoding
    batch = config.data.batch_size
    of = check.world * config.optimizer.accumulate
    while batch % (2 * of) == 0 and batch >= 4 * config.optimizer.accumulate:
        batch //= 2
        rows = min(batch, check.n_ids) / min(config.data.batch_size, check.n_ids)
        if check.needed(config, found) - (1 - rows) * grows > limit:
            continue
        if check.fits(config.changed(data={"batch_size": batch})):
            return batch
    return None
