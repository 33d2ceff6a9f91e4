"""The data sets at a path or URL: itself, or the splits in it."""

from __future__ import annotations

from pathlib import Path

from coke.pipeline.dataset.manifest import MANIFEST_NAME
from coke.pipeline.dataset.open import is_dataset
from coke.pipeline.remote.remote import Remote, location
from coke.pipeline.sources.splits import SPLITS

_FILES = frozenset({MANIFEST_NAME, "index.npy", "keys.txt", "checksums.npy"})


def find_parts(data: str | Path) -> list[str | Path]:
    """A data set, or all of a folder of splits, damaged ones among them.

    Args:
        data: a folder, or a URL.

    Returns:
        Folders or URLs, by name; empty where there is none.

    Raises:
        ValueError: a URL cannot be read.
    """
    place = location(data)
    if isinstance(place, str):
        return list(_remote_parts(place))
    if is_dataset(place):
        return [place]
    if not place.is_dir():
        return []
    folders = [path for path in sorted(place.iterdir()) if path.is_dir()]
    return [path for path in folders if any((path / name).exists() for name in _FILES)]


def _remote_parts(url: str) -> list[str]:
    remote = Remote(url)
    if remote.has(MANIFEST_NAME):
        return [url]
    if remote.is_web:  # few servers list their folders: the usual names are tried, too
        names = sorted({*remote.folders(), *SPLITS})
        return [f"{url}/{name}" for name in names if Remote(f"{url}/{name}").has(MANIFEST_NAME)]
    found = {name.partition("/")[::2] for name in remote.names()}
    return sorted({f"{url}/{folder}" for folder, file in found if file in _FILES})
