"""Where an evaluation's features are kept: on the device, or in a mapped file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coke.pipeline.remote.cache_dir import cache_folder

#: Share of the available memory that features may take. Test images have features too, and the
#: classifiers that read them need memory of their own.
_SHARE = 0.5
_ITEM = 4  # bytes of a float32


def feature_room(
    rows: int, widths: Mapping[str, int], device: torch.device, cache_dir: str | None = None
) -> dict[str, Tensor]:
    """Memory for float32 features (rows, width) of each representation; its content is undefined.

    On a GPU it is the GPU's. On a CPU it is the process's, if all representations together fit half
    of the memory that is available; else a file in the cache's folder, which the system reads and
    writes as memory allows. The file has no name and goes with the process, however that ends.

    Args:
        cache_dir: the folder for the file; the cache's default folder if None.

    Raises:
        ValueError: the folder cannot be written, or has no room for the file.
    """
    needed = rows * sum(widths.values()) * _ITEM
    if device.type != "cpu" or needed <= _SHARE * available_memory():
        return {n: torch.empty(rows, width, device=device) for n, width in widths.items()}
    folder = cache_folder(cache_dir)
    return {name: _mapped(folder, rows, width) for name, width in widths.items()}


def available_memory() -> float:
    """Bytes that new allocations may take without swapping; infinite where the system is silent."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return float("inf")


def _mapped(folder: Path, rows: int, width: int) -> Tensor:
    size = rows * width * _ITEM
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            # Reserved now: a map of a file that finds no room later ends the process by a signal.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ValueError(
                f"features of {rows:,} images take {size / 1e9:.1f} GB, more than memory has, and "
                f"{folder} cannot take them ({error.strerror or error}); set COKE_CACHE to a "
                "folder with room, or leave baselines out (--no-baselines)"
            ) from error
        mapped = np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, width))
    return torch.from_numpy(mapped)
