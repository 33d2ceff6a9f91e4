"""The folder where files of remote data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path

from coke.files.home import expanded

_REMEDY = (
    "set COKE_CACHE to a folder that may be written, or give --cache-dir where the command has it"
)


def default_cache_dir() -> Path:
    """``$COKE_CACHE``, or ``coke`` in the user's caches.

    Raises:
        ValueError: there is no home folder for caches.
    """
    named = os.environ.get("COKE_CACHE")
    if named:
        return expanded(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches:
        return expanded(caches) / "coke"
    try:
        return Path.home() / ".cache" / "coke"
    except RuntimeError as error:  # a container's user, without HOME or an entry in passwd
        raise ValueError(
            f"this user has no home folder to keep remote data in: {_REMEDY}"
        ) from error


def cache_folder(named: str | Path | None = None) -> Path:
    """The cache's folder, made where it is missing: ``named``, or the default one.

    Raises:
        ValueError: there is none that can be written; the message names the remedy.
    """
    folder = expanded(named) if named else default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot keep remote data in {folder}: {error.strerror or error}; {_REMEDY}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot keep remote data in {folder}: no permission; {_REMEDY}")
    return folder
