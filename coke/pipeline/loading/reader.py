"""Stored image bytes by id: an image is a slice of a container mapped into memory."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coke.config.machine import DEFAULT_CACHE_GB
from coke.pipeline.cache.fetch_ahead import FetchedContainers
from coke.pipeline.containers.mapped import LocalContainers, MappedContainers
from coke.pipeline.dataset.index import RAW_RGB, ImageIndex
from coke.pipeline.order.epoch_order import Window


class RecordReader:
    """Reads the stored image bytes of any id of a data set, in any order.

    Args:
        index: the data set.
        cache_gb: gigabytes that containers of a remote data set may take in the cache.

    Raises:
        ValueError: a container is missing or has another size than the manifest says.
    """

    def __init__(self, index: ImageIndex, *, cache_gb: float = DEFAULT_CACHE_GB) -> None:
        self.index = index
        self._sizes = np.array([c.size for c in index.manifest.containers], dtype=np.uint64)
        self._checked = np.zeros(
            -(-len(index) // 8), dtype=np.uint8
        )  # one bit per id: its CRC-32 was right
        self._containers: MappedContainers
        if index.remote is None:
            self._containers = LocalContainers(index)
        else:
            self._containers = FetchedContainers(index, limit=round(cache_gb * 1e9))

    def follow(self, windows: Sequence[Window]) -> None:
        """Announces the containers that will be read next.

        Those of a remote data set are then fetched ahead; otherwise when they are read.
        """
        self._containers.follow(windows)

    def read(self, ids: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Encoded bytes of each id, as slices of the maps, without a copy.

        Raw pixels are copied behind the header of a PPM, a form that every decoder reads.

        Raises:
            ValueError: a container is missing, cannot be fetched, or ends before a record does.
        """
        rows = self.index.rows[np.asarray(ids)]
        return _encoded(self._stored(ids, rows), rows)

    def _stored(
        self, ids: Sequence[int] | NDArray[np.int64], rows: NDArray[np.void]
    ) -> list[NDArray[np.uint8]]:
        """The bytes of each row, as they lie in the containers.

        The kernel is advised of all of them first. A disk then reads them side by side, instead of
        one page fault after the other.
        """
        numbers = rows["container"]
        ends = rows["offset"] + rows["length"]
        self._check_places(ids, numbers, ends)
        starts, stops, containers = rows["offset"].tolist(), ends.tolist(), numbers.tolist()
        maps = self._containers.maps(set(containers))
        if hasattr(mmap, "MADV_WILLNEED"):
            for c, a, b in zip(containers, starts, stops, strict=True):
                page = a - a % mmap.PAGESIZE
                maps[c].file.madvise(mmap.MADV_WILLNEED, page, b - page)
        return [maps[c].data[a:b] for c, a, b in zip(containers, starts, stops, strict=True)]

    def read_checked(self, ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """As :meth:`read`; bytes that this reader sees for the first time must have their CRC-32.

        It costs a pass over the bytes in the first epoch, about 0.1 ms for an ImageNet image.
        Containers of a remote data set were hashed when they were fetched, and are not checked.

        Raises:
            ValueError: as :meth:`read`, or bytes are not those that were ingested; the message
                names container, offset and id.
        """
        rows = self.index.rows[ids]
        stored = self._stored(ids, rows)
        if self.index.remote is None:
            bits = np.uint8(1) << (ids % 8).astype(np.uint8)
            for i in np.flatnonzero(self._checked[ids // 8] & bits == 0).tolist():
                if zlib.crc32(stored[i].data) != self.index.crc32[ids[i]]:
                    raise ValueError(
                        f"{self.index.describe(int(ids[i]))} is not the image that was ingested "
                        f"(CRC-32): the container was damaged or replaced, or the index is of "
                        f"another ingest; `coke verify {self.index.folder}` tells more"
                    )
            np.bitwise_or.at(self._checked, ids // 8, bits)
        return _encoded(stored, rows)

    def _check_places(
        self,
        ids: Sequence[int] | NDArray[np.int64],
        numbers: NDArray[np.uint32],
        ends: NDArray[np.uint64],
    ) -> None:
        """Refuses rows whose container does not exist, or that reach beyond its end."""
        known = numbers < len(self._sizes)
        inside = known.copy()
        inside[known] = ends[known] <= self._sizes[numbers[known]]
        if not inside.all():
            wrong = int(np.argmin(inside))
            raise ValueError(
                f"{self.index.describe(int(ids[wrong]))} ends at byte {int(ends[wrong])}, behind "
                f"the end of its container: the index is of another ingest; "
                f"`coke verify {self.index.folder}` tells more"
            )


def _encoded(stored: list[NDArray[np.uint8]], rows: NDArray[np.void]) -> list[NDArray[np.uint8]]:
    for i in np.flatnonzero(rows["encoding"] == RAW_RGB).tolist():
        header = b"P6 %d %d 255\n" % (int(rows["width"][i]), int(rows["height"][i]))
        stored[i] = np.concatenate([np.frombuffer(header, dtype=np.uint8), stored[i]])
    return stored
