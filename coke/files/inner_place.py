"""A place that cannot be renamed: the root of a mounted volume, or a folder whose parent is locked.

Containers usually write to one (``docker run -v volume:/out``). Then the work lies inside OUT,
and its entries are moved up one by one, the manifest last: a folder without its manifest is no
result. Meanwhile the old entries wait in ``.coke.replaced``. Its renaming, when all new entries are
there, is the moment from which the new ones count; before it, a run that finds it undoes the rest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from coke.files import durable
from coke.files.kind import INNER_PREFIX, entries
from coke.files.place import Place

_MOUNTS = Path("/proc/self/mountinfo")


def place_of(out: Path) -> Place:
    """Where a folder goes: by renaming where that can be, otherwise inside of it."""
    final = out.resolve()
    if not final.is_dir():
        return Place(out)
    parent_is_locked = not os.access(final.parent, os.W_OK | os.X_OK)
    return InnerPlace(out) if parent_is_locked or is_mount(final) else Place(out)


def is_mount(folder: Path) -> bool:
    """Whether something is mounted at a folder (absolute, without links): a file system, or a part
    of one (a bind mount), which has the device number of its surroundings.
    """
    if os.path.ismount(folder):
        return True
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return False
    return str(folder) in {_unescaped(line.split(" ")[4]) for line in lines}


def _unescaped(path: str) -> str:
    """Blanks, tabs, line breaks and backslashes stand as octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


class InnerPlace(Place):
    """A place whose partial, old and finished work lies inside the final folder.

    Attributes:
        replacing: the old entries, while they are moved away; then it is called ``replaced``.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.replacing = self._beside("replacing")

    def _beside(self, suffix: str) -> Path:
        return self.final / f"{INNER_PREFIX}{suffix}"

    def clean(self) -> None:
        if self.replacing.exists():  # none of the new entries has been moved
            _move(entries(self.replacing), self.final)
            self.replacing.rmdir()
        if self.replaced.exists():
            self._undo()
        shutil.rmtree(self.done, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def put(self, folder: Path) -> None:
        self.replacing.mkdir()
        try:
            _move(reversed(entries(self.final)), self.replacing)
            self.replacing.rename(self.replaced)
            durable.flush(self.final)
            _move(entries(folder), self.final)
        except BaseException:
            self.clean()
            raise
        shutil.rmtree(self.done, ignore_errors=True)
        self.replaced.rename(self.done)
        durable.flush(self.final)
        folder.rmdir()
        shutil.rmtree(self.done, ignore_errors=True)

    def _undo(self) -> None:
        """The new entries go back to where they were made, the old ones to the final folder."""
        made = next(self.partial.glob("*/dataset"), None)
        if made is None:  # its run has removed it
            made = self.partial / "discarded"
            made.mkdir(parents=True, exist_ok=True)
        _move(reversed(entries(self.final)), made)
        _move(entries(self.replaced), self.final)
        self.replaced.rmdir()


def _move(found: Iterable[Path], folder: Path) -> None:
    for path in found:
        if path.suffix == ".json":  # all others are there before a manifest is, and after it
            durable.flush(folder)
        path.rename(folder / path.name)
    durable.flush(folder)
