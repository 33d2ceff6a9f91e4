"""Pretends that coke runs on another machine than it does, as environment variables say.

`tests/__init__.py` calls :func:`pretend`, so processes that tests start pretend the same. Only
`coke` and its tests see the pretended machine; torch, DALI and Ray see the real one.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from coke.files.byte_size import parse_bytes

BF16 = "COKE_TEST_BF16"  # 1: the CPU computes bf16 in hardware, 0: it does not
CORES = "COKE_TEST_CORES"  # so many cores may be used
MEMORY = "COKE_TEST_MEMORY"  # so much memory is free, such as 2GiB, and no cgroup limits it
GPU = "COKE_TEST_GPU"  # 1: torch reports one GPU; tests that compute on it are still skipped
WITHOUT = "COKE_TEST_WITHOUT"  # packages that are not installed, separated by commas


def pretend(environment: Mapping[str, str]) -> None:
    """Changes what `coke` learns of this machine, until the process ends."""
    for package in filter(None, environment.get(WITHOUT, "").split(",")):
        sys.modules[package] = None  # type: ignore[assignment]  # import and find_spec find nothing
    files = {}
    if BF16 in environment:
        native = "avx512_bf16" if environment[BF16] == "1" else "avx2"
        files["/proc/cpuinfo"] = f"flags\t\t: fpu {native}\n"
    if MEMORY in environment:
        files |= free_memory_files(parse_bytes(environment[MEMORY]))
    if files:
        builtins.open = pretended_open(files)
    if CORES in environment:
        cores = int(environment[CORES])
        _answer(os, "sched_getaffinity", lambda _pid: set(range(cores)))
        _answer(os, "cpu_count", lambda: cores)
    if environment.get(GPU) == "1":
        import torch

        _answer(torch.cuda, "is_available", lambda: True)
        _answer(torch.cuda, "device_count", lambda: 1)


def free_memory_files(free: int) -> dict[str, str]:
    """The files by which Linux says that so many bytes are free, and that no cgroup limits them."""
    return {
        "/proc/meminfo": f"MemTotal: {free // 512} kB\nMemAvailable: {free // 1024} kB\n",
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": "max\n",
    }


def pretended_open(files: Mapping[str, str]) -> Any:
    """``open`` on a machine where these files hold these texts."""
    real_open = open

    def answer(file: Any, *args: Any, **options: Any) -> Any:
        if isinstance(file, str) and file in files:
            return io.StringIO(files[file])
        return real_open(file, *args, **options)

    return answer


def _answer(module: Any, name: str, pretended: Callable[..., Any]) -> None:
    """Lets `coke` and `tests` get the pretended answer, and all other callers the real one."""
    real = getattr(module, name, None)

    def answer(*args: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        ours = caller.partition(".")[0] in ("coke", "tests", "__main__")
        return pretended(*args) if ours or real is None else real(*args)

    setattr(module, name, answer)
