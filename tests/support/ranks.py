"""Two gloo ranks in one pair of processes, which a test module starts once: importing torch in a
fresh process is what costs time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessContext, spawn

WORLD = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def take_place(rank: int, port: int) -> None:
    """What torchrun puts into the environment of a rank."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def run_ranks(work: Callable[..., None], *args: Any, limit_s: float) -> list[int | None]:
    """Runs ``work(rank, *args)`` in two processes; their exit codes, None of those that took longer
    than ``limit_s`` and were killed. What either raised is raised here."""
    context: Any = spawn(work, args, WORLD, join=False)
    assert isinstance(context, ProcessContext)
    try:
        give_up = time.monotonic() + limit_s
        for process in context.processes:
            process.join(timeout=max(0.0, give_up - time.monotonic()))
        codes = [process.exitcode for process in context.processes]
        if any(code is not None and code > 0 for code in codes):
            context.join(timeout=0)  # raises with the traceback
        return codes
    finally:
        for process in context.processes:
            process.kill()


def saved(folder: Path, name: str) -> list[Any]:
    """What both ranks have saved under this name."""
    return [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(WORLD)]
