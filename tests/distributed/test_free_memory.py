"""Free memory as Linux tells it: RAM, and cgroups of both versions."""

from __future__ import annotations

import builtins
from pathlib import PurePosixPath

import pytest
import torch

from coke.distributed.free_memory import FreeMemory, free_host_memory, free_memory
from tests.support.pretended_machine import free_memory_files, pretended_open

CPU = torch.device("cpu")
MIB = 1 << 20


def machine(monkeypatch: pytest.MonkeyPatch, free: int, **files: str) -> None:
    """A machine where ``free`` bytes of RAM are available, with these files besides."""
    told = free_memory_files(free) | {name.replace("__", "/"): text for name, text in files.items()}
    # This machine's own cgroups are not read: the pretended ones are in folders of other names.
    monkeypatch.setattr("coke.distributed.free_memory._CGROUPS", PurePosixPath("/cg"))
    monkeypatch.setattr(builtins, "open", pretended_open(told))


def test_without_a_limit_it_is_the_ram_that_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2048 * MIB)
    assert free_host_memory() == FreeMemory(size=2048 * MIB, of="RAM")
    assert str(free_memory(CPU)) == "2 GiB free (RAM)"


def test_ranks_of_a_machine_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2048 * MIB)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert str(free_memory(CPU)) == "512 MiB free (RAM, shared by 4 ranks)"


def test_version_2_limits_less_what_is_used_and_cannot_be_reclaimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {
        "/proc/self/cgroup": "0::/jobs/mine\n",
        "/cg/jobs/mine/memory.max": "max\n",
        "/cg/jobs/memory.max": f"{1000 * MIB}\n",  # of the cgroup above
        "/cg/jobs/memory.current": f"{700 * MIB}\n",
        "/cg/jobs/memory.stat": f"anon {500 * MIB}\ninactive_file {200 * MIB}\n",
    }
    machine(monkeypatch, 2048 * MIB, **files)
    assert free_host_memory() == FreeMemory(size=500 * MIB, of="limit of the cgroup")


def test_version_1_in_a_container_whose_path_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/self/cgroup": "9:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        "/cg/memory/memory.limit_in_bytes": f"{1000 * MIB}\n",
        "/cg/memory/memory.usage_in_bytes": f"{1300 * MIB}\n",
        "/cg/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {100 * MIB}\n",
    }
    machine(monkeypatch, 2048 * MIB, **files)
    assert free_host_memory() == FreeMemory(size=0, of="limit of the cgroup")
    files["/cg/memory/memory.limit_in_bytes"] = "9223372036854771712\n"  # none
    machine(monkeypatch, 2048 * MIB, **files)
    assert free_host_memory() == FreeMemory(size=2048 * MIB, of="RAM")


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 1)
    monkeypatch.setattr(builtins, "open", pretended_open({"/proc/meminfo": ""}))
    assert free_memory(CPU) is None


def test_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (15 << 30, 16 << 30))
    assert str(free_memory(torch.device("cuda:3"))) == "15 GiB free (GPU 3)"
