"""All files below a folder: those that may be read, and those that are set apart by their kind."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from coke.pipeline.remote.filesystem import filesystem_of
from coke.pipeline.sources.keys import from_system, key_bytes, to_system
from coke.pipeline.sources.source import Other
from coke.pipeline.sources.storage import is_url, patiently

HIDDEN = "hidden: a part of its path starts with a dot, or is __MACOSX"
_SPECIAL = "no regular file: a socket, pipe or device"


@dataclass
class Found:
    """Names relative to the folder, with forward slashes, in any order."""

    names: list[str] = field(default_factory=list)
    apart: list[Other] = field(default_factory=list)

    def add(self, name: str) -> None:
        if is_hidden(name):
            self.apart.append(Other(name, HIDDEN))
        else:
            self.names.append(name)


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, or lies in a hidden folder."""
    if "/." not in name and "__MACOSX" not in name:
        return name.startswith(".") and not name.startswith("../")
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def walk(folder: str) -> Found:
    """All files below a folder, each listed once. Names are sorted by their UTF-8 bytes.

    Raises:
        ValueError: a folder cannot be listed.
    """
    found = Found()
    if is_url(folder):
        _walk_url(folder, found)
    else:
        _walk_local(folder, "", (), found)
    found.names.sort(key=key_bytes)
    found.apart.sort(key=lambda other: key_bytes(other.key))
    return found


def _walk_url(folder: str, found: Found) -> None:
    system, inside = filesystem_of(folder)
    prefix = inside.rstrip("/") + "/"
    try:
        paths = patiently(folder, lambda: system.find(inside))
    except OSError as error:
        raise ValueError(f"cannot list {folder}: {error.strerror}") from error
    for path in paths:
        name = path.removeprefix(prefix)
        if path.endswith("/") or f"{path}/" == prefix:
            continue  # an empty object that stands for a folder
        if name == path:
            raise ValueError(f"{folder} lists {path}, which is not below it; give another URL")
        found.add(name)


def _walk_local(folder: str, prefix: str, above: tuple[tuple[int, int], ...], found: Found) -> None:
    """Linked folders are followed (subsets of ImageNet are commonly made of links), except into a
    folder that the walk is inside of. A link to nothing is listed: reading it will say why it
    fails.
    """
    path = to_system(folder)
    try:
        status = os.stat(path)
        entries = list(os.scandir(path))
    except OSError as error:
        raise ValueError(f"cannot list folder {folder}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        name = from_system(entry.name)
        # Only links are asked again: a collection has millions of files and a stat costs.
        mode = _mode_of_link(entry.path) if entry.is_symlink() else None
        if entry.is_dir(follow_symlinks=False) or (mode is not None and stat.S_ISDIR(mode)):
            _walk_local(f"{folder.rstrip('/')}/{name}", f"{prefix}{name}/", (*above, here), found)
        elif entry.is_file(follow_symlinks=False) or (mode is not None and stat.S_ISREG(mode)):
            found.add(prefix + name)
        else:
            found.apart.append(Other(prefix + name, _SPECIAL))


def _mode_of_link(path: str) -> int:
    """File type and mode of a link's target; of a link to nothing, that of a file."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return stat.S_IFREG
