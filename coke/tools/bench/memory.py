"""Peak memory, and the largest batch that fits a budget."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from coke.config.config import Config
from coke.pipeline.views import dali
from coke.tools.bench.coke_step import CokeStep
from coke.tools.bench.synthetic_views import synthetic_views


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes at the peak of training.

    Attributes:
        peak: of the GPU: torch's at its peak, and what DALI and the driver hold; without a GPU, of
            the process (its largest resident size).
        of: what ``peak`` is of, ``GPU`` or ``process``.
        budget: what it must fit, in bytes.
        largest_batch: the largest batch size found whose step fits; None where there is no GPU to
            search on.
    """

    peak: int
    of: str
    budget: int
    largest_batch: int | None


def peak_bytes(device: torch.device) -> int:
    """The largest that was held so far, see :class:`Memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + held_beside_torch(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_beside_torch(device: torch.device) -> int:
    """Bytes of the GPU that are in use now, but not by torch's allocator: DALI, the driver, other
    processes."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def release_unused(device: torch.device) -> None:
    """Gives back what nothing refers to any more: allocators of torch and DALI keep it."""
    gc.collect()
    if device.type != "cuda":
        return
    torch.cuda.empty_cache()
    if dali.AVAILABLE:
        from nvidia.dali import backend

        backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]


def largest_batch_that_fits(
    config: Config,
    device: torch.device,
    precision: str,
    budget: int,
    *,
    beside: int,
    steps: int = 2,
) -> int:
    """The largest multiple of 8 whose training step stays in the budget, on synthetic data.

    Args:
        budget: bytes for everything.
        beside: bytes that are held beside torch; a loader's do not grow with the batch here.

    Returns: 0 where not even 8 images fit.
    """
    assert device.type == "cuda"
    training = CokeStep(config, device, precision)

    def fits(batch_size: int) -> bool:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            views = synthetic_views(config.recipes_at(config.optimizer.epochs), batch_size, device)
            ids = torch.arange(batch_size, device=device)
            for _ in range(steps):  # the second one has the optimiser's state
                training.step(views, ids)
            torch.cuda.synchronize(device)
        except torch.cuda.OutOfMemoryError:
            return False
        return torch.cuda.max_memory_reserved(device) + beside <= budget

    largest = largest_multiple(fits, of=8, limit=65_536)
    torch.cuda.empty_cache()
    return largest


def largest_multiple(fits: Callable[[int], bool], *, of: int, limit: int) -> int:
    """The largest multiple of ``of`` up to ``limit`` that fits, where smaller ones fit too; else 0.

    Doubles until one does not fit, then halves the gap.
    """
    good, bad = 0, limit // of + 1
    trial = 1
    while good < bad - 1:
        if fits(trial * of):
            good = trial
        else:
            bad = trial
        trial = min(2 * good, bad - 1) if bad > limit // of else (good + bad) // 2
        trial = max(trial, good + 1)
    return good * of
