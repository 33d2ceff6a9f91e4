"""Kinds of folders that coke publishes, and which folders one may be written to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Names in a mounted volume's root that are work of a run, see :mod:`coke.files.inner_place`.
INNER_PREFIX = ".coke."
_OF_THE_FILE_SYSTEM = "lost+found"  # in the root of an ext file system


def entries(folder: Path) -> list[Path]:
    """Files and folders of a result, its manifest (any ``.json``) last.

    Left out are names that belong to a run at work or to the file system.
    """
    found = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(INNER_PREFIX) and path.name != _OF_THE_FILE_SYSTEM
    ]
    return sorted(found, key=lambda path: (path.suffix == ".json", path))


def _no_manifests(folder: Path) -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of folder that is published.

    Attributes:
        name: for messages.
        foreign: finds a path in a folder that does not belong to such a folder, so that
            ``--overwrite`` must not remove it; None if every path belongs.
        manifests: hashes that stand for all files of a folder, by relative path. By them a later
            run recognises what an earlier run has published.
    """

    name: str
    foreign: Callable[[Path], Path | None]
    manifests: Callable[[Path], dict[str, str]] = _no_manifests


def kind_of_files(name: str, *, marker: str, says: str, files: frozenset[str]) -> Kind:
    """A kind of folder that holds no other files than ``files``.

    Args:
        name: for messages.
        marker: the file by which such a folder is recognised.
        says: text that ``marker`` contains.
        files: names of all files that such a folder may hold.
    """

    def foreign(folder: Path) -> Path | None:
        found = entries(folder)
        about = folder / marker
        if not about.is_file() or says.encode() not in about.read_bytes():
            return found[0]
        return next((path for path in found if path.name not in files or path.is_dir()), None)

    return Kind(name=name, foreign=foreign)


def check_free(out: Path, *, overwrite: bool, kind: Kind) -> None:
    """Raises ValueError when ``out`` must not be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the {kind.name}")
    if not entries(out):
        return
    if not overwrite:
        raise ValueError(
            f"{out} exists and is not empty; add --overwrite to replace it, or choose another "
            "folder"
        )
    if foreign := kind.foreign(out):
        raise ValueError(
            f"{out} holds {foreign}, which is no part of a coke {kind.name}, so --overwrite does "
            "not touch it; choose another folder, or remove it yourself"
        )
