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

BF16 = "COKE_TEST_BF16"  # 1: the CPU computes bf16 in hardware, 0: it does not
CORES = "COKE_TEST_CORES"  # so many cores may be used
GPU = "COKE_TEST_GPU"  # 1: torch reports one GPU; tests that compute on it are still skipped
WITHOUT = "COKE_TEST_WITHOUT"  # packages that are not installed, separated by commas


def pretend(environment: Mapping[str, str]) -> None:
    """Changes what `coke` learns of this machine, until the process ends."""
    for package in filter(None, environment.get(WITHOUT, "").split(",")):
        sys.modules[package] = None  # type: ignore[assignment]  # import and find_spec find nothing
    if BF16 in environment:
        _pretend_bf16(environment[BF16] == "1")
    if CORES in environment:
        cores = int(environment[CORES])
        _answer(os, "sched_getaffinity", lambda _pid: set(range(cores)))
        _answer(os, "cpu_count", lambda: cores)
    if environment.get(GPU) == "1":
        import torch

        _answer(torch.cuda, "is_available", lambda: True)
        _answer(torch.cuda, "device_count", lambda: 1)


def _pretend_bf16(native: bool) -> None:
    real_open = open
    flags = "flags\t\t: fpu " + ("avx512_bf16" if native else "avx2") + "\n"

    def pretended_open(file: Any, *args: Any, **options: Any) -> Any:
        if file == "/proc/cpuinfo":
            return io.StringIO(flags)
        return real_open(file, *args, **options)

    builtins.open = pretended_open


def _answer(module: Any, name: str, pretended: Callable[..., Any]) -> None:
    """Lets `coke` and `tests` get the pretended answer, and all other callers the real one."""
    real = getattr(module, name, None)

    def answer(*args: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        ours = caller.partition(".")[0] in ("coke", "tests", "__main__")
        return pretended(*args) if ours or real is None else real(*args)

    setattr(module, name, answer)
