"""The files of a data set: which are ours, and what identifies the whole."""

from __future__ import annotations

import re
from pathlib import Path

from coke.files.hashing import file_sha256
from coke.files.kind import Kind, entries
from coke.pipeline.dataset.manifest import FORMAT_NAME
from coke.pipeline.dataset.open import is_dataset

REJECTED = "rejected.tsv"  #: what is in no split, or not stored in one, and why
_OURS = re.compile(
    r"manifest\.json|(index|checksums|contents)\.npy|keys\.txt|(rejected|duplicates)\.tsv"
    r"|images-\d+\.\w+"
)


def manifest_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the manifest of each split in a folder: they stand for all other files."""
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted((*folder.glob("manifest.json"), *folder.glob("*/manifest.json")))
    }


def is_dataset_file(name: str) -> bool:
    """Whether `coke ingest` writes a file of this name, in a data set or in a split of one."""
    folder, _, file = name.rpartition("/")
    return "/" not in folder and _OURS.fullmatch(file) is not None


def _foreign(folder: Path) -> Path | None:
    """Something in a folder that `coke ingest` did not write; None when all of it is ours."""
    for path in entries(folder):
        if _is_ours(folder):
            if not _OURS.fullmatch(path.name) or path.is_dir():
                return path
        elif path.name == REJECTED and path.is_file() and any(map(_is_ours, folder.iterdir())):
            continue  # what was in no split
        elif not _is_ours(path):
            return path
        elif foreign := _foreign(path):
            return foreign
    return None


def _is_ours(folder: Path) -> bool:
    # The manifest may be damaged beyond parsing: replacing such a data set is the remedy.
    return is_dataset(folder) and FORMAT_NAME.encode() in (folder / "manifest.json").read_bytes()


DATASET = Kind(name="data set", foreign=_foreign, manifests=manifest_hashes)
