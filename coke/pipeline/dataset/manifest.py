"""The manifest: what a data set says of itself, in ``manifest.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT_NAME = "coke-dataset"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


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
    """Contents of ``manifest.json``.

    Attributes:
        storage: format of the containers, ``"wds"`` or ``"ffcv"``.
        count: number of ids.
        tombstones: ids that have no image; opening a data set need not scan all rows for them.
        rejected: images of the source that were left out.
        classes: ``classes[label]`` is the class name of a label.
        contents_sha256: hash of ``contents.npy``; empty where there is no such file.
        base: identity of the data set whose ids were kept; empty where there was none.
        settings: options of the ingest, for the reader of the file.
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
    tombstones: int
    contents_sha256: str
    base: str

    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of each file beside the containers, by name."""
        found = {
            "index.npy": self.index_sha256,
            "keys.txt": self.keys_sha256,
            "checksums.npy": self.checksums_sha256,
            "contents.npy": self.contents_sha256,
        }
        return {name: sha256 for name, sha256 in found.items() if sha256}

    def save(self, folder: Path) -> None:
        """Writes the manifest into the data set's folder."""
        (folder / MANIFEST_NAME).write_text(
            json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8"
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a local data set.

    Raises:
        ValueError: there is none, it is damaged, or it is of another format or version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} is no data set: {path} is missing; make one with `coke ingest SRC {folder}`"
        )
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
