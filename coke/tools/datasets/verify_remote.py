"""A data set at a URL, copied here piece by piece while it is verified.

What arrives is not refused when it has another hash: to say so, and which records it hits, is what
verifying is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coke.pipeline.dataset.manifest import MANIFEST_NAME, Container, read_manifest
from coke.pipeline.remote.remote import Remote, WrongContent


class RemoteCopy:
    """Index files of a remote data set in a local folder, and its containers one at a time.

    Args:
        url: the data set.
        folder: an empty folder for it.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest is damaged, or a file cannot be read after all attempts.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self._remote = Remote(url)
        (folder / MANIFEST_NAME).write_bytes(self._remote.read(MANIFEST_NAME))
        manifest = read_manifest(folder)
        for name, sha256 in manifest.file_hashes().items():
            self._fetch(name, sha256)

    def others(self) -> list[str]:
        """Names of all files there, where the storage can list them."""
        return [] if self._remote.is_web else self._remote.names()

    @contextmanager
    def holding(self, container: Container) -> Iterator[None]:
        """The container, and DALI's index of it, are in the folder meanwhile."""
        beside = Path(container.name).with_suffix(".idx").name
        try:
            self._fetch(container.name, container.sha256)
            if beside != container.name:
                with suppress(FileNotFoundError):
                    (self.folder / beside).write_bytes(self._remote.read(beside))
            yield
        finally:
            for name in (container.name, beside):
                (self.folder / name).unlink(missing_ok=True)

    def _fetch(self, name: str, sha256: str) -> None:
        """A file as it is there; none where it is missing."""
        path = self.folder / name
        with suppress(WrongContent):  # the same twice: it is the file and not the transfer
            try:
                self._remote.download(name, path, sha256=sha256)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
