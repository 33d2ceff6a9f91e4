"""Containers mapped into memory: a record is a slice of a map."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.order.epoch_order import Window
from coke.pipeline.order.live_ids import ContainerSpans

OTHER_FILES = 32  # least number of open files that a process needs besides containers


@dataclass(frozen=True)
class Mapped:
    """A container mapped into memory.

    Attributes:
        file: the map.
        data: its bytes as an array (size,), without a copy.
    """

    file: mmap.mmap
    data: NDArray[np.uint8]

    @staticmethod
    def of(descriptor: int) -> Mapped:
        """Maps an open file, which must not be empty; the descriptor may be closed after it."""
        file = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            file.madvise(mmap.MADV_RANDOM)  # the order is shuffled: bytes read ahead are wasted
        return Mapped(file, np.frombuffer(file, dtype=np.uint8))


class MappedContainers(Protocol):
    """The containers of a data set, from a local folder or from the cache."""

    def maps(self, numbers: Collection[int]) -> Mapping[int, Mapped]:
        """Maps of at least these containers, by number; valid until the next call.

        Raises:
            ValueError: one is missing or is not what the manifest says.
        """

    def follow(self, windows: Sequence[Window]) -> None:
        """Announces the containers that will be read next, so that they can be fetched ahead."""


class LocalContainers:
    """Containers in the data set's folder; each is mapped when it is first read, and stays mapped.

    Containers without an image, as those that a subset leaves out, need not be there.

    Raises:
        ValueError: a container is missing or has another size than the manifest says, or there are
            more of them than this process may open.
    """

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._folder = str(index.folder)
        self._maps: dict[int, Mapped] = {}
        spans = [(c.start, c.stop) for c in index.manifest.containers]
        needed = ContainerSpans(index.live, spans).numbers.tolist()
        for number in needed:
            self._checked_path(number)
        count = len(needed)
        limit = allow_open_files(count)
        if limit < count + OTHER_FILES:
            raise ValueError(
                f"{index.location} has {count} containers, which all stay open, and this process "
                f"may open {limit} files: raise the hard limit of open files (ulimit -Hn) to "
                f"{count + OTHER_FILES} or more, or ingest again with a larger --shard-size"
            )

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
        path = os.path.join(self._folder, container.name)  # a Path would take longer than the stat
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


def allow_open_files(more: int) -> int:
    """Raises the soft limit of open files by so many, or up to the hard limit.

    A map keeps its file open.

    Returns: the limit now, of all open files of this process.
    """
    try:
        import resource
    except ImportError:  # this platform has no such limit
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    limit = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
