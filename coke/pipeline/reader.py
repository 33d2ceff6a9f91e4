"""Bytes by id: every container is mapped once, a record is a slice of the map."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.index import RAW_RGB, ImageIndex


class RecordReader:
    """Reads the stored image bytes of any id of a data set, in any order.

    Args:
        index: the data set.

    Raises:
        ValueError: a container is missing or has another size than the manifest says.
    """

    def __init__(self, index: ImageIndex) -> None:
        self.index = index
        self._files: list[mmap.mmap] = []
        self._maps: list[NDArray[np.uint8]] = []
        _allow_open_files(len(index.manifest.containers))
        for container in index.manifest.containers:
            path = index.folder / container.name
            if not path.is_file():
                raise ValueError(f"container {path} is missing; restore it or ingest again")
            size = path.stat().st_size
            if size != container.size:
                raise ValueError(
                    f"container {path} has {size} bytes, the manifest says {container.size}; "
                    f"`coke verify {index.folder}` tells more"
                )
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)  # the order is a shuffle: read-ahead is waste
            self._files.append(mapped)
            self._maps.append(np.frombuffer(mapped, dtype=np.uint8))

    def read(self, ids: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Encoded bytes of each id, as views into the maps: nothing is copied here.

        Only raw pixels are, to put the header of a PPM before them, which every decoder reads.

        The kernel is told of all of them first, so that a disk reads them side by side instead of
        one page fault after the other.
        """
        rows = self.index.rows[np.asarray(ids)]
        starts = rows["offset"].tolist()
        stops = (rows["offset"] + rows["length"]).tolist()
        containers = rows["container"].tolist()
        if hasattr(mmap, "MADV_WILLNEED"):
            for c, a, b in zip(containers, starts, stops, strict=True):
                page = a - a % mmap.PAGESIZE
                self._files[c].madvise(mmap.MADV_WILLNEED, page, b - page)
        maps = self._maps
        records = [maps[c][a:b] for c, a, b in zip(containers, starts, stops, strict=True)]
        for i in np.flatnonzero(rows["encoding"] == RAW_RGB).tolist():
            records[i] = _as_ppm(records[i], rows[i])
        return records


def _as_ppm(pixels: NDArray[np.uint8], row: np.void) -> NDArray[np.uint8]:
    header = b"P6 %d %d 255\n" % (int(row["width"]), int(row["height"]))
    return np.concatenate([np.frombuffer(header, dtype=np.uint8), pixels])


def _allow_open_files(more: int) -> None:
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
