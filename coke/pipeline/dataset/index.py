"""The index: the data set itself. Row number = the image's stable id.

A data set is a folder that holds ``manifest.json``, ``index.npy``, ``keys.txt`` and containers.
Opening one maps the index instead of parsing it: the pages are shared between ranks.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.files.hashing import file_sha256
from coke.pipeline.remote.remote import Remote, default_cache_dir, location

FORMAT_NAME = "coke-dataset"
FORMAT_VERSION = 1

JPEG, RAW_RGB = 0, 1  # encodings of stored images; raw is height * width * 3 bytes

#: One row per id, packed. ``offset`` and ``length`` locate the image's bytes in the container;
#: ``label`` is -1 where the source had none; height and width are the stored image's, in pixels;
#: ``encoding`` is :data:`JPEG` or :data:`RAW_RGB`. A row of length 0 is a tombstone: an id whose
#: image is gone, which nothing else ever gets.
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


@dataclass(frozen=True, kw_only=True)
class Container:
    """One file of images: its name in the data set's folder, its bytes, its ids [start, stop).

    Tombstones inside the range have no record.
    """

    name: str
    size: int
    sha256: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says. ``classes[label]`` is the class name of a label.

    ``count`` is of ids; ``tombstones`` of them have no image. ``base`` is the identity of the data
    set whose ids were kept, if any. ``contents_sha256`` is empty where source files have no hashes.
    """

    format: str
    version: int
    storage: str
    count: int
    rejected: int
    classes: list[str]
    keys_sha256: str
    index_sha256: str
    checksums_sha256: str
    settings: dict[str, Any]
    containers: list[Container]
    tombstones: int = 0  # so that opening need not scan all rows for them
    contents_sha256: str = ""
    base: str = ""


def write_index(
    folder: Path,
    *,
    rows: NDArray[np.void],
    crc32: NDArray[np.uint32],
    keys: list[str],
    classes: list[str],
    containers: list[Container],
    rejected: int,
    settings: dict[str, Any],
    storage: str = "wds",
    contents: NDArray[np.uint8] | None = None,
    base: str = "",
) -> Manifest:
    """Writes the index files and, last, ``manifest.json`` beside the containers.

    ``crc32`` (N,) is of each stored image: what names the image where a container is damaged.
    ``contents`` (N, 32) is the SHA-256 of each source file: what tells that a file was renamed
    (zeros where the stored image is the file, and nobody asked). It costs 32 bytes per image on
    disk; nothing reads it in training.
    ``storage`` is the format of the containers, ``"wds"`` or ``"ffcv"``.
    """
    assert len(rows) == len(keys) and rows.dtype == INDEX_DTYPE
    np.save(folder / "index.npy", rows)
    np.save(folder / "checksums.npy", crc32)
    if contents is not None:
        assert contents.shape == (len(rows), 32) and contents.dtype == np.uint8
        np.save(folder / "contents.npy", contents)
    (folder / "keys.txt").write_bytes("".join(f"{key}\n" for key in keys).encode())
    manifest = Manifest(
        format=FORMAT_NAME,
        version=FORMAT_VERSION,
        storage=storage,
        count=len(rows),
        rejected=rejected,
        classes=classes,
        keys_sha256=file_sha256(folder / "keys.txt"),
        index_sha256=file_sha256(folder / "index.npy"),
        checksums_sha256=file_sha256(folder / "checksums.npy"),
        settings=settings,
        containers=containers,
        tombstones=int((rows["length"] == 0).sum()),
        contents_sha256="" if contents is None else file_sha256(folder / "contents.npy"),
        base=base,
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    return manifest


def is_dataset(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def find_split(folder: str | Path, splits: tuple[str, ...]) -> str | Path:
    """The data set meant by ``folder``: itself, or its first sub data set named in ``splits``.

    The folder may be a URL; then so is what is found.

    Raises:
        ValueError: there is none.
    """
    folder = location(folder)
    if isinstance(folder, str):
        return _find_remote_split(folder, splits)
    if is_dataset(folder):
        return folder
    for split in splits:
        if is_dataset(folder / split):
            return folder / split
    if not folder.exists():
        raise ValueError(
            f"data set {folder} does not exist: make one with `coke ingest SRC {folder}`"
        )
    raise ValueError(
        f"{folder} is no data set (no manifest.json in it, nor in {', '.join(splits)}): "
        f"make one with `coke ingest {folder} OUT`"
    )


def _find_remote_split(url: str, splits: tuple[str, ...]) -> str:
    tried = [url, *(f"{url}/{split}" for split in splits)]
    for candidate in tried:
        try:
            Remote(candidate).read("manifest.json")
        except FileNotFoundError:
            continue
        return candidate
    raise ValueError(
        f"{url} is no data set (no manifest.json in it, nor in {', '.join(splits)}): "
        "check the URL, or copy a folder there that `coke ingest` made"
    )


class ImageIndex:
    """A data set opened for reading.

    Of a remote one, manifest and index are fetched into the cache here, keys when they are asked
    for, and containers by the loader.

    Args:
        folder: the folder that holds ``manifest.json``: a path, or a URL (``s3://``, ``gs://``,
            ``hf://``, ``http(s)://``).
        cache_dir: where files of remote data sets are kept; ``$COKE_CACHE``, or ``coke`` in the
            user's cache folder, when None.

    Attributes:
        rows: (N,) structured array of :data:`INDEX_DTYPE`, memory-mapped.
        manifest: what the data set says of itself.
        folder: local; of a remote data set, the folder in the cache.
        remote: where the rest is; None for a local data set.

    Raises:
        ValueError: not a data set, another format version, or files that disagree.
    """

    def __init__(self, folder: str | Path, *, cache_dir: str | Path | None = None) -> None:
        place = location(folder)
        self.remote: Remote | None = None
        if isinstance(place, str):
            self.remote = Remote(place)
            self.folder = _mirror(self.remote, Path(cache_dir or default_cache_dir()))
        else:
            self.folder = place
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise ValueError(
                f"{self.folder} is no data set: {path} is missing; "
                f"make one with `coke ingest SRC {self.folder}`"
            )
        self.manifest = _read_manifest(path)
        index_path = self._file("index.npy", self.manifest.index_sha256)
        try:
            self.rows: NDArray[np.void] = np.load(index_path, mmap_mode="r")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{index_path} cannot be read ({error}); ingest again") from error
        if self.rows.dtype != INDEX_DTYPE or len(self.rows) != self.manifest.count:
            raise ValueError(
                f"{index_path} holds {len(self.rows)} rows of {self.rows.dtype}; the manifest says "
                f"{self.manifest.count} of {INDEX_DTYPE}: ingest again"
            )

    def __len__(self) -> int:
        return self.manifest.count

    def _file(self, name: str, sha256: str) -> Path:
        """A file of the data set; of a remote one, in the cache."""
        if self.remote is None:
            return self.folder / name
        from coke.pipeline.cache.container_cache import fetch_small

        try:
            return fetch_small(self.remote, name, self.folder, sha256)
        except FileNotFoundError as error:
            raise ValueError(f"{error}: the data set there is incomplete, copy it again") from error

    @property
    def location(self) -> str:
        """Absolute path or URL of the data set."""
        return str(self.folder.resolve()) if self.remote is None else self.remote.url

    @property
    def n_live(self) -> int:
        """Number of ids that have an image."""
        return len(self) - self.manifest.tombstones

    @cached_property
    def keys(self) -> list[str]:
        """Relative key of each id, as in the source."""
        path = self._file("keys.txt", self.manifest.keys_sha256)
        return path.read_text(encoding="utf-8").split("\n")[:-1]

    @cached_property
    def crc32(self) -> NDArray[np.uint32]:
        """CRC-32 of each stored image (N,), memory-mapped.

        Raises:
            ValueError: the file is missing or damaged.
        """
        path = self._file("checksums.npy", self.manifest.checksums_sha256)
        try:
            found: NDArray[np.uint32] = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); ingest again") from error
        if found.dtype != np.uint32 or len(found) != len(self):
            raise ValueError(
                f"{path} holds {len(found)} of {found.dtype}, the manifest says {len(self)} of "
                "uint32: ingest again"
            )
        return found

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class label of each id (N,), -1 = none."""
        return self.rows["label"].astype(np.int64)

    @property
    def contents(self) -> NDArray[np.uint8] | None:
        """SHA-256 of the source file of each id (N, 32), zeros where it was not taken.

        None where none was recorded.
        """
        if not self.manifest.contents_sha256:
            return None
        path = self._file("contents.npy", self.manifest.contents_sha256)
        try:
            found: NDArray[np.uint8] = np.load(path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); ingest again") from error
        return found

    @cached_property
    def dead_ids(self) -> NDArray[np.int64]:
        """Tombstones, ascending. Looks for them only where the manifest says there are some."""
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
        if self.manifest.tombstones == 0:
            return None
        return np.setdiff1d(np.arange(len(self)), self.dead_ids, assume_unique=True)

    @property
    def n_classes(self) -> int:
        return len(self.manifest.classes)

    @property
    def identity(self) -> str:
        """Hash of what ids mean: keys and images, whatever the shard size or storage."""
        both = self.manifest.keys_sha256 + self.manifest.checksums_sha256
        return hashlib.sha256(both.encode()).hexdigest()

    def describe(self, image_id: int) -> str:
        """Where an id lives, for messages: container, offset and key."""
        row = self.rows[image_id]
        number = int(row["container"])
        containers = self.manifest.containers
        name = containers[number].name if number < len(containers) else f"container {number}"
        try:
            key = f" ({self.keys[image_id]})"
        except (OSError, ValueError, IndexError):  # a message must not fail for want of a key
            key = ""
        return f"id {image_id}{key} in {name} at offset {int(row['offset'])}"

    def describe_cut(self, number: int, size: int) -> str:
        """Which record is the first that a container of only ``size`` bytes does not hold."""
        container = self.manifest.containers[number]
        rows = self.rows[container.start : container.stop]
        cut = np.flatnonzero((rows["length"] > 0) & (rows["offset"] + rows["length"] > size))
        if len(cut) == 0:
            return "every record is there"
        first = cut[np.argmin(rows["offset"][cut])]
        return f"the first record cut off is {self.describe(container.start + int(first))}"


def _mirror(remote: Remote, cache: Path) -> Path:
    from coke.pipeline.cache.container_cache import mirror_manifest

    try:
        return mirror_manifest(remote, cache)
    except FileNotFoundError as error:
        raise ValueError(
            f"{remote.url} is no data set: {error}; copy a folder there that `coke ingest` made"
        ) from error


def _read_manifest(path: Path) -> Manifest:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = (raw["format"], raw["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); ingest again") from error
    if found != (FORMAT_NAME, FORMAT_VERSION):
        raise ValueError(
            f"{path} says format {found[0]!r} version {found[1]!r}; this coke reads "
            f"{FORMAT_NAME!r} version {FORMAT_VERSION}"
        )
    try:
        raw["containers"] = [Container(**c) for c in raw["containers"]]
        return Manifest(**raw)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); ingest again") from error
