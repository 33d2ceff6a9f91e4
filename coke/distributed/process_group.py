"""The ranks of one training run: their numbers, their process group, how they end.

A rank is one process with one device. Its launcher is torchrun (under Slurm too) or
``coke train --nproc``. The launcher sets the rank's place in the environment: ``RANK``,
``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``. Without a launcher a run is one
rank, and no function here sends anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from coke.distributed.lifeline import PEER_LOST, end_with_launcher

T = TypeVar("T")


class PeerLostError(ConnectionError):
    """Another rank has ended or does not answer. This rank then ends with ``exit_status``."""

    exit_status = PEER_LOST


def rank() -> int:
    """Number of this process among all of the run, from 0."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """Number of ranks of the run."""
    return dist.get_world_size() if _in_group() else 1


def is_main() -> bool:
    """Whether this is rank 0, which prints, records and saves."""
    return rank() == 0


def barrier() -> None:
    """Waits until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, the same on each; it is computed in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def on_main(work: Callable[[], T]) -> T:
    """Does ``work`` on rank 0 alone and sends its result, or its ValueError, to every rank.

    A refusal of rank 0 so ends all ranks in the same way; the others do not wait in vain. The
    result is sent pickled: keep it small.

    Raises:
        ValueError: ``work`` raised it on rank 0.
    """
    if world_size() == 1:
        return work()
    outcome: list[tuple[T | None, str | None]] = [(None, None)]
    if is_main():
        try:
            outcome = [(work(), None)]
        except ValueError as error:
            outcome = [(None, str(error))]
    dist.broadcast_object_list(outcome, src=0)
    result, refused = outcome[0]
    if refused is not None:
        raise ValueError(refused)
    return result  # type: ignore[return-value]


def started_by_launcher() -> bool:
    """Whether a launcher has set this process's rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def ranks_of_this_machine() -> int:
    """Number of ranks that share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started_by_launcher() else 1


def device_of_this_rank(device: str) -> str:
    """The device of this rank for the setting ``device``.

    Under a launcher ``auto`` and ``cuda`` mean ``cuda:LOCAL_RANK``. Other settings, and all without
    a launcher, come back as they are.

    Raises:
        ValueError: one GPU was named for all ranks, or this machine has fewer GPUs than ranks.
    """
    if not started_by_launcher() or device not in ("auto", "cuda"):
        if device.startswith("cuda:") and ranks_of_this_machine() > 1:
            raise ValueError(
                f"device is {device!r}, but {ranks_of_this_machine()} ranks run on this machine: "
                "give --device cuda, and choose GPUs with CUDA_VISIBLE_DEVICES"
            )
        return device
    if not torch.cuda.is_available():
        return device  # "auto" then means the CPU; "cuda" is refused elsewhere
    local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= gpus:
        raise ValueError(
            f"{ranks_of_this_machine()} ranks run on this machine, but torch sees {gpus} GPUs: "
            "start as many ranks as there are GPUs, or use --device cpu"
        )
    return f"cuda:{local_rank}"


@contextmanager
def process_group(device: torch.device, timeout_s: float) -> Iterator[None]:
    """Joins the other ranks for the length of a ``with`` block: NCCL on GPUs, gloo on CPUs.

    Args:
        device: device of this rank.
        timeout_s: seconds that a rank waits for the others, at the start and in every exchange.

    Raises:
        PeerLostError: another rank ended, or did not come or answer in time.
        ValueError: the environment of the launcher is incomplete.
    """
    if not started_by_launcher() or int(os.environ["WORLD_SIZE"]) == 1 or _in_group():
        yield
        return
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise ValueError(
                f"RANK and WORLD_SIZE are set but {name} is not: start ranks with torchrun, or "
                "with coke train --nproc"
            )
    end_with_launcher(os.environ)
    on_gpu = device.type == "cuda"
    try:
        with peer_errors(timeout_s):
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                timeout=timedelta(seconds=timeout_s),
                device_id=device if on_gpu else None,
            )
            yield
    finally:
        # After an error NCCL might wait for a rank that is gone, and the process ends anyway.
        if _in_group() and (not on_gpu or sys.exc_info()[0] is None):
            dist.destroy_process_group()


@contextmanager
def peer_errors(timeout_s: float) -> Iterator[None]:
    """Turns the errors of NCCL and gloo about lost peers into :class:`PeerLostError`."""
    try:
        yield
    except RuntimeError as error:
        if not _is_about_peers(error):
            raise
        raise PeerLostError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} lost the others: one has "
            f"ended, or did not answer within {timeout_s:g} s ({_first_line(error)}). Look for the "
            "first rank that failed, then go on with --resume"
        ) from error


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_about_peers(error: RuntimeError) -> bool:
    """Whether an error is about lost peers. Gloo raises plain RuntimeErrors that name its files."""
    if isinstance(error, dist.DistError):  # from NCCL, the store, or a time limit
        return True
    return "/gloo/" in str(error) or "onnection closed by peer" in str(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
