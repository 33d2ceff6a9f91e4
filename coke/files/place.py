"""The place of a folder that is published: its final name, and the names beside it.

Renaming replaces the folder at the final name. A process may be killed between two renamings:
:meth:`Place.clean` then brings the old folder back.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from coke.files import durable


class Place:
    """Where a folder goes.

    Args:
        out: the final folder, as the user gave it.

    Attributes:
        final: the final folder, absolute, without links.
        partial: work of the run that writes the folder, or of an interrupted run.
        replaced: the old folder, while the new one takes its name.
        done: work that is no longer needed, while it is removed.
        scratch: files that runs need only while they work, a folder for each run.
    """

    def __init__(self, out: Path) -> None:
        self.final = out.resolve()
        self.partial = self._beside("partial")
        self.replaced = self._beside("replaced")
        self.done = self._beside("done")
        self.scratch = self._beside("scratch")

    def _beside(self, suffix: str) -> Path:
        return self.final.parent / f".{self.final.name}.{suffix}"

    def clean(self) -> None:
        """Cleans up after a killed run: an old folder without its name gets it back."""
        if self.replaced.exists():
            if self.final.exists():
                shutil.rmtree(self.replaced)
            else:
                self.replaced.rename(self.final)
        shutil.rmtree(self.done, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def put(self, folder: Path) -> None:
        """Gives ``folder`` the final name, in place of what has it.

        Raises:
            OSError: the disk refuses; the old folder has its name again.
        """
        if self.final.exists():
            self.final.rename(self.replaced)
        try:
            folder.rename(self.final)
        except BaseException:
            if self.replaced.exists():
                self.replaced.rename(self.final)
            raise
        durable.flush(self.final.parent)
        shutil.rmtree(self.replaced, ignore_errors=True)

    def remove_partial(self) -> None:
        """Removes :attr:`partial` at one instant: its name goes first, then its files."""
        shutil.rmtree(self.done, ignore_errors=True)
        self.partial.rename(self.done)
        shutil.rmtree(self.done, ignore_errors=True)
