"""Trainings in parallel, a core each."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch


def pool(jobs: int) -> ProcessPoolExecutor:
    """Processes with a core each: results do not depend on how many there are."""
    context = multiprocessing.get_context("spawn")
    cores: Any = context.Queue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put(core)
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_core, initargs=(cores,))


def _take_core(cores: Any) -> None:
    os.sched_setaffinity(0, [cores.get()])
    torch.set_num_threads(1)
