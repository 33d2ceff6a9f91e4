"""Where a data set is: a local folder, or a URL whose index files are copied to the local disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from coke.pipeline.dataset.manifest import MANIFEST_NAME
from coke.pipeline.dataset.mirror import fetch_file, mirror_manifest
from coke.pipeline.remote.cache_dir import cache_folder
from coke.pipeline.remote.remote import Remote, location


class DatasetFolder:
    """The index files of a data set, by name.

    Args:
        folder: the folder that holds ``manifest.json``: a path, or a URL.
        cache_dir: where files of remote data sets are kept; ``$COKE_CACHE``, or ``coke`` in the
            user's cache folder, when None.

    Attributes:
        path: the local folder; of a remote data set, its folder in the cache, with the manifest.
        remote: the remote folder; None for a local data set.

    Raises:
        ValueError: there is no data set at the URL, it cannot be read, or there is no folder for
            the cache. A local folder is not looked into.
    """

    def __init__(self, folder: str | Path, *, cache_dir: str | Path | None = None) -> None:
        place = location(folder)
        self.remote: Remote | None = None
        if isinstance(place, Path):
            self.path = place
            return
        self.remote = Remote(place)
        try:
            self.path = mirror_manifest(self.remote, cache_folder(cache_dir))
        except FileNotFoundError as error:
            raise ValueError(
                f"{place} is no data set: {error}; copy a folder there that `coke ingest` made"
            ) from error

    @property
    def location(self) -> str:
        """Absolute path or URL of the data set."""
        return str(self.path.resolve()) if self.remote is None else self.remote.url

    def file(self, name: str, sha256: str) -> Path:
        """Local path of a file; a file of a remote data set is downloaded when it is asked for.

        Raises:
            ValueError: a remote file is missing, cannot be read, or has another hash.
        """
        if self.remote is None:
            return self.path / name
        try:
            return fetch_file(self.remote, name, self.path, sha256)
        except FileNotFoundError as error:
            raise ValueError(f"{error}: the data set there is incomplete, copy it again") from error


def is_dataset(folder: Path) -> bool:
    """Whether a local folder is a data set."""
    return (folder / MANIFEST_NAME).is_file()


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
        if Remote(candidate).has(MANIFEST_NAME):
            return candidate
    with suppress(FileNotFoundError):
        Remote(url).read(MANIFEST_NAME)  # a refusal of access is an error of its own
    raise ValueError(
        f"{url} is no data set (no manifest.json in it, nor in {', '.join(splits)}): "
        "check the URL, or copy a folder there that `coke ingest` made"
    )
