"""The index: one row per image; the number of the row is the image's stable id.

A data set is a folder with ``manifest.json``, ``index.npy``, ``keys.txt`` and containers. Opening
it maps the index into memory instead of parsing it, so that ranks share its pages.
"""

from __future__ import annotations

import copy
import hashlib
import zipfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.dataset.chosen_ids import Ids, checked_ids, hash_of_ids, read_ids
from coke.pipeline.dataset.manifest import read_manifest
from coke.pipeline.dataset.open import DatasetFolder
from coke.pipeline.order.live_ids import LiveIds

JPEG = 0  # encoding of a stored image
RAW_RGB = 1  # the same, for height * width * 3 bytes

#: One row per id, packed. ``offset`` and ``length`` are the image's bytes in the container;
#: ``label`` is -1 where the source had none; height and width are of the stored image, in pixels;
#: ``encoding`` is :data:`JPEG` or :data:`RAW_RGB`. A row of length 0 is a tombstone: the image of
#: this id is gone, and no other image ever gets the id.
INDEX_DTYPE = np.dtype(
    [
        ("offset", "<u8"),
        ("container", "<u4"),
        ("length", "<u4"),
        ("label", "<i4"),
        ("height", "<u2"),
        ("width", "<u2"),
        ("encoding", "u1"),
    ]
)


class ImageIndex:
    """A data set opened for reading.

    Manifest and index of a remote data set are copied into the cache when it is opened, keys when
    they are asked for; the loader fetches containers.

    Args:
        folder: the folder that holds ``manifest.json``: a path, or a URL (``s3://``, ``gs://``,
            ``hf://``, ``http(s)://``).
        cache_dir: where files of remote data sets are kept; ``$COKE_CACHE``, or ``coke`` in the
            user's cache folder, when None.

    Attributes:
        rows: (N,) structured array of :data:`INDEX_DTYPE`, memory-mapped.
        manifest: what the data set says of itself.
        folder: the local folder; of a remote data set, its folder in the cache.
        remote: the remote folder; None for a local data set.
        subset_ids: (M,) ids that :meth:`subset` was given, ascending; None for the whole data set.

    Raises:
        ValueError: not a data set, another format version, or files that disagree.
    """

    subset_ids: Ids | None = None
    _kept: Ids | None = None  # of a subset: its ids that have an image, ascending

    def __init__(self, folder: str | Path, *, cache_dir: str | Path | None = None) -> None:
        self._files = DatasetFolder(folder, cache_dir=cache_dir)
        self.folder, self.remote = self._files.path, self._files.remote
        self.manifest = read_manifest(self.folder)
        sha256 = self.manifest.index_sha256
        self.rows: NDArray[np.void] = self._array("index.npy", sha256, INDEX_DTYPE, ())

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def location(self) -> str:
        """Absolute path or URL of the data set."""
        return self._files.location

    def _array(
        self, name: str, sha256: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """A file of one entry of this dtype and shape per id, memory-mapped.

        Raises:
            ValueError: the file is missing or damaged.
        """
        path = self._files.file(name, sha256)
        try:
            found: NDArray[Any] = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); ingest again") from error
        if found.dtype != dtype or found.shape != (len(self), *shape):
            raise ValueError(
                f"{path} holds {found.shape} of {found.dtype}; the manifest says "
                f"{(len(self), *shape)} of {dtype}: ingest again"
            )
        return found

    @property
    def n_live(self) -> int:
        """Number of ids that have an image."""
        return len(self) - self.manifest.tombstones

    @cached_property
    def keys(self) -> list[str]:
        """Relative key of each id, as in the source."""
        path = self._files.file("keys.txt", self.manifest.keys_sha256)
        return path.read_text(encoding="utf-8").split("\n")[:-1]

    @cached_property
    def crc32(self) -> NDArray[np.uint32]:
        """CRC-32 of each stored image (N,), memory-mapped.

        Raises:
            ValueError: the file is missing or damaged.
        """
        sha256 = self.manifest.checksums_sha256
        return self._array("checksums.npy", sha256, np.dtype(np.uint32), ())

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class label of each id (N,), -1 = none."""
        return self.rows["label"].astype(np.int64)

    @property
    def contents(self) -> NDArray[np.uint8] | None:
        """SHA-256 of the source file of each id (N, 32), zeros where it was not taken.

        None where no hash was recorded.

        Raises:
            ValueError: the file is missing or damaged.
        """
        if not self.manifest.contents_sha256:
            return None
        sha256 = self.manifest.contents_sha256
        return self._array("contents.npy", sha256, np.dtype(np.uint8), (32,))

    @cached_property
    def dead_ids(self) -> NDArray[np.int64]:
        """Ids without an image, ascending: tombstones, and of a subset all others that it lacks.

        Looks for tombstones only where the manifest says there are some.
        """
        if self._kept is not None:
            return np.setdiff1d(np.arange(len(self)), self._kept, assume_unique=True)
        if self.manifest.tombstones == 0:
            return np.zeros(0, dtype=np.int64)
        found = np.flatnonzero(self.rows["length"] == 0)
        if len(found) != self.manifest.tombstones:
            raise ValueError(
                f"{self.folder / 'index.npy'} holds {len(found)} tombstones, the manifest says "
                f"{self.manifest.tombstones}: ingest again"
            )
        return found

    @cached_property
    def live_ids(self) -> NDArray[np.int64] | None:
        """Ids that have an image (n_live,), ascending; None where all do."""
        if self._kept is not None:
            return self._kept
        if self.manifest.tombstones == 0:
            return None
        return np.setdiff1d(np.arange(len(self)), self.dead_ids, assume_unique=True)

    @property
    def live(self) -> LiveIds:
        """The ids that have an image, counted."""
        if self._kept is not None:
            return LiveIds(len(self), live_ids=self._kept)
        return LiveIds(len(self), self.dead_ids)

    def without(self, ids: NDArray[np.int64]) -> ImageIndex:
        """A view of the data set in which these ids (M,) have no image. No id changes."""
        if self._kept is not None:
            return self._view(np.setdiff1d(self._kept, ids))
        view = copy.copy(self)
        view.__dict__.pop("live_ids", None)
        view.dead_ids = np.union1d(self.dead_ids, ids)
        view.manifest = replace(self.manifest, tombstones=len(view.dead_ids))
        return view

    def subset(self, ids: Any, *, name: str | None = None) -> ImageIndex:
        """A view of the data set in which only these ids have an image. No id changes.

        An order of the view has every chosen image exactly once; containers that hold none are
        neither opened nor fetched. Memory is of the number of chosen ids.

        Args:
            ids: (M,) whole numbers, in any order; or the path of a ``.npy`` file of them.
            name: what messages call the ids.

        Raises:
            ValueError: the file cannot be read; or :func:`checked_ids` refuses the ids.
        """
        if isinstance(ids, str | Path):
            name = name or f"--ids {ids}"
            ids = read_ids(ids)
        chosen = checked_ids(
            ids, len(self), self.dead_ids, name=name or "ids", data=str(self.folder)
        )
        view = self._view(chosen)
        view.subset_ids = chosen
        return view

    def _view(self, kept: Ids) -> ImageIndex:
        view = copy.copy(self)
        for name in ("live_ids", "dead_ids"):
            view.__dict__.pop(name, None)
        view._kept = kept
        view.manifest = replace(self.manifest, tombstones=len(self) - len(kept))
        return view

    @property
    def subset_sha256(self) -> str | None:
        """Hash of the ids that :meth:`subset` was given; None for the whole data set."""
        return None if self.subset_ids is None else hash_of_ids(self.subset_ids)

    @property
    def n_classes(self) -> int:
        return len(self.manifest.classes)

    @property
    def identity(self) -> str:
        """Hash of keys and images: equal where ids mean the same, in whatever containers."""
        both = self.manifest.keys_sha256 + self.manifest.checksums_sha256
        return hashlib.sha256(both.encode()).hexdigest()

    def describe(self, image_id: int) -> str:
        """Container, offset and key of an id, for messages."""
        row = self.rows[image_id]
        number = int(row["container"])
        containers = self.manifest.containers
        name = containers[number].name if number < len(containers) else f"container {number}"
        try:
            key = f" ({self.keys[image_id]})"
        except (
            OSError,
            ValueError,
            IndexError,
        ):  # a message must not fail without keys
            key = ""
        return f"id {image_id}{key} in {name} at offset {int(row['offset'])}"

    def describe_cut(self, number: int, size: int) -> str:
        """For messages: the first record that is cut off if a container has only ``size`` bytes."""
        container = self.manifest.containers[number]
        rows = self.rows[container.start : container.stop]
        cut = np.flatnonzero((rows["length"] > 0) & (rows["offset"] + rows["length"] > size))
        if len(cut) == 0:
            return "every record is there"
        first = cut[np.argmin(rows["offset"][cut])]
        return f"the first record cut off is {self.describe(container.start + int(first))}"
