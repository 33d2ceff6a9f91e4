"""Containers mapped into memory: a record is a slice of a map."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.order.epoch_order import Window


@dataclass(frozen=True)
class Mapped:
    """A container in memory, as far as it is read: the map, and the same as an array."""

    file: mmap.mmap
    data: NDArray[np.uint8]

    @staticmethod
    def of(descriptor: int) -> Mapped:
        """Maps an open file, which must not be empty; the descriptor may be closed after it."""
        file = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            file.madvise(mmap.MADV_RANDOM)  # the order is a shuffle: read-ahead is waste
        return Mapped(file, np.frombuffer(file, dtype=np.uint8))


class MappedContainers(Protocol):
    """Where containers come from: a folder, or a remote one through the cache."""

    def maps(self, numbers: Collection[int]) -> Mapping[int, Mapped]:
        """Maps of at least these containers, by number; the mapping is good until the next call.

        Raises:
            ValueError: one is missing or is not what the manifest says.
        """

    def follow(self, windows: Sequence[Window]) -> None:
        """Tells which containers will be asked for next, so that they can be fetched ahead."""


class LocalContainers:
    """Containers in the data set's folder; each is mapped when it is first read, for good.

    Raises:
        ValueError: a container is missing or has another size than the manifest says.
    """

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._folder = str(index.folder)
        self._maps: dict[int, Mapped] = {}
        for number in range(len(index.manifest.containers)):
            self._checked_path(number)
        allow_open_files(len(index.manifest.containers))

    def maps(self, numbers: Collection[int]) -> Mapping[int, Mapped]:
        for number in numbers:
            if number not in self._maps:
                with open(self._checked_path(number), "rb") as file:
                    self._maps[number] = Mapped.of(file.fileno())
        return self._maps

    def follow(self, windows: Sequence[Window]) -> None:
        pass

    def _checked_path(self, number: int) -> str:
        container = self._index.manifest.containers[number]
        path = os.path.join(self._folder, container.name)  # a Path takes longer than the stat
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise ValueError(
                f"container {path} is missing, and with it ids {container.start}.."
                f"{container.stop - 1}; {self._index.describe_cut(number, 0)}; "
                "restore it or ingest again"
            ) from None
        if size != container.size:
            raise ValueError(
                f"container {path} has {size} bytes, the manifest says {container.size}; "
                f"{self._index.describe_cut(number, size)}; "
                f"`coke verify {self._index.folder}` tells more"
            )
        return path


def allow_open_files(more: int) -> None:
    """Raises the soft limit of open files towards the hard one: a map holds its file open."""
    try:
        import resource
    except ImportError:  # no such limit on this platform
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
