"""Memory of this process, now and at its peak."""

from __future__ import annotations

import resource
import sys

import torch


def resident_memory() -> int:
    """Bytes of this process in memory now; its peak if the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return _peak_resident()


def peak_memory(device: torch.device) -> int:
    """The peak so far in bytes: of torch's tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _peak_resident()


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
