"""``~`` at the start of a path: the user's home folder, as shells have it."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path whose ``~`` or ``~user`` at its start is a home folder.

    Shells expand it only at the start of a word: not in ``--out=~/x``, in quotes, or in a file of
    settings.

    Raises:
        ValueError: the user has no home folder.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise ValueError(f"{text} cannot be expanded: this user has no home folder; set HOME")
    return Path(text)
