"""Memory that is free: of this machine, of the cgroup that a process may be in, of a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from coke.distributed.process_group import ranks_of_this_machine
from coke.files.byte_size import show_bytes

if TYPE_CHECKING:
    import torch

_CGROUPS = PurePosixPath("/sys/fs/cgroup")
#: Larger limits mean none. Version 1 writes about 2**63.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True)
class FreeMemory:
    """Bytes that a rank may still take, and a few words for messages: of what they are."""

    size: int
    of: str

    def __str__(self) -> str:
        return f"{show_bytes(self.size)} free ({self.of})"


def free_memory(device: torch.device) -> FreeMemory | None:
    """What one rank may still take: of its GPU, or its share of this machine's RAM.

    None where the system does not tell (a CPU without ``/proc``).
    """
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return FreeMemory(size=free, of=f"GPU {device.index or 0}")
    found = free_host_memory()
    ranks = ranks_of_this_machine()
    if found is None or ranks == 1:
        return found
    return FreeMemory(size=found.size // ranks, of=f"{found.of}, shared by {ranks} ranks")


def free_host_memory() -> FreeMemory | None:
    """RAM that can be had without swapping, or what the limit of a cgroup leaves, if that is less.

    None where the system does not tell.
    """
    available = _meminfo("MemAvailable")
    if available is None:
        return None
    limits = [FreeMemory(size=size, of="limit of the cgroup") for size in _cgroups()]
    return min([FreeMemory(size=available, of="RAM"), *limits], key=lambda free: free.size)


def _meminfo(name: str) -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) * 1024
    return None


def _cgroups() -> Iterator[int]:
    """What each cgroup of this process leaves, those above it too."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            roots, limit, used = [_CGROUPS, _CGROUPS / "unified"], "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            roots = [_CGROUPS / "memory"]
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        # In a container the path is the host's; the root is then this container's own cgroup.
        for root in roots:
            for folder in (root / inside, *(root / parent for parent in inside.parents)):
                largest = _number(_read(folder / limit))
                if largest is not None and largest < _NO_LIMIT:
                    taken = (_number(_read(folder / used)) or 0) - _reclaimable(folder)
                    yield max(0, largest - max(0, taken))


def _reclaimable(folder: PurePosixPath) -> int:
    """Bytes of files' pages that the kernel drops before it refuses memory."""
    stat = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines())
    return int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(os.fspath(path), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
