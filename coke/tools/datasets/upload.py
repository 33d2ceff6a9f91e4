"""Publishing a data set at a URL: made on a local disk, then sent there, its manifests last.

A data set without a manifest is none, so a reader of the URL sees a whole one or nothing. What an
interrupted upload has sent is written down beside the local copy, and not sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from coke.files import durable
from coke.files.hashing import file_sha256
from coke.files.lock import HeldError, LockFile
from coke.pipeline.remote.cache_dir import cache_folder
from coke.pipeline.remote.remote import Remote
from coke.tools.datasets.dataset_kind import is_dataset_file, manifest_hashes

_CONNECTIONS = 8
_MANIFEST = "manifest.json"
_WRITE_TEST = "images-0.write_test"  # a name of our own: what is left of it is replaced


class Upload:
    """A data set on its way to a URL.

    Args:
        url: the folder it gets. It may hold a data set with ``overwrite``, and never other files.
        overwrite: replace the data set that is there. It is gone while the new one is sent: an
            object store cannot rename.
        restart: forget what an interrupted upload has sent.

    Attributes:
        folder: where the data set is made before it is sent, on the disk of the cache
            (``$COKE_CACHE``); removed after the upload.

    Raises:
        ValueError: the URL is taken, cannot be listed, or its protocol cannot write.
    """

    def __init__(self, url: str, *, overwrite: bool, restart: bool, console: Console) -> None:
        self.url = url.rstrip("/")
        self._remote = Remote(self.url)
        self._console = console
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._place = cache_folder() / "uploads" / name
        self.folder = self._place / "dataset"
        self._receipt = self._place / "receipt.json"
        self._sent = self._place / "sent.tsv"
        self._remote.check_writable()
        there = self._remote.names()
        if foreign := [name for name in there if not is_dataset_file(name)]:
            raise ValueError(
                f"{self.url} holds {foreign[0]}, which is no part of a coke data set; choose "
                "another folder"
            )
        if not overwrite and any(_is_manifest(name) for name in there):
            raise ValueError(
                f"{self.url} holds a data set; add --overwrite to replace it, or choose another "
                "folder"
            )

        self._place.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = LockFile(self._place / "lock")
        except HeldError as error:
            raise ValueError(
                f"{error} is writing {self.url} at this moment; wait for it, or choose another "
                "folder"
            ) from None
        if restart:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._receipt.unlink(missing_ok=True)
            self._sent.unlink(missing_ok=True)
        try:
            self._check_writable()
        except BaseException:
            self.__exit__()
            raise

    def _check_writable(self) -> None:
        """Writes an empty file and removes it: a bucket may be missing, or only let us read.

        Raises:
            ValueError: nothing can be written at the URL.
        """
        if self.url.startswith("hf://"):
            return  # each write is a commit there
        file = self._place / _WRITE_TEST
        file.touch()
        try:
            self._remote.upload(_WRITE_TEST, file)
            self._remote.remove(_WRITE_TEST)
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.url} cannot be written: the bucket does not exist ({error.__cause__}); "
                "create it, or choose another place"
            ) from error
        finally:
            file.unlink()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *error: object) -> None:
        if set(os.listdir(self._place)) <= {"lock", self._sent.name}:
            shutil.rmtree(self._place, ignore_errors=True)
        self._lock.close()

    def staged(self, command: str) -> dict[str, Any] | None:
        """The report of an earlier run of the same command whose upload was interrupted."""
        receipt = self._kept()
        if receipt is None:
            return None
        whole = receipt["manifests"] == manifest_hashes(self.folder)
        return receipt if whole and receipt["command"] == command else None

    def _kept(self) -> dict[str, Any] | None:
        try:
            receipt: dict[str, Any] = json.loads(self._receipt.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return receipt

    def keep(self, command: str, report: dict[str, Any]) -> None:
        """Notes that the local data set is whole, so that only the upload is left to do."""
        about = {**report, "command": command, "manifests": manifest_hashes(self.folder)}
        before = self._kept()
        if before is None or before["manifests"] != about["manifests"]:
            # Files of another data set may have been sent under the same names since.
            self._sent.unlink(missing_ok=True)
        durable.write_json(self._receipt, about)

    def send(self) -> None:
        """Sends what is not there yet, the manifests last; then removes the local copy.

        Raises:
            ValueError: a file cannot be written, after all attempts; the same command goes on.
        """
        names = sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*.*"))
        hashes = {name: file_sha256(self.folder / name) for name in names}
        there = self._remote.names()
        sent = {name for name in self._sent_before(hashes) if name in there}
        left = [name for name in names if name not in sent and not _is_manifest(name)]
        try:
            for name in filter(_is_manifest, there):  # from here on there is no data set
                self._remote.remove(name)
            self._send(left, hashes, resumed=len(sent))
            for name in there:
                if name not in hashes and not _is_manifest(name):
                    self._remote.remove(name)
            for name in filter(_is_manifest, names):
                self._remote.upload(name, self.folder / name)
        except BaseException:
            self._console.print(
                f"What is made and sent is kept in {self._place}: the same command goes on",
                soft_wrap=True,
            )
            raise
        shutil.rmtree(self.folder)
        self._receipt.unlink()
        self._sent.unlink()

    def _send(self, names: list[str], hashes: dict[str, str], *, resumed: int) -> None:
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        description = f"sending {len(names)} files" + (f", {resumed} were sent" if resumed else "")
        pool = ThreadPoolExecutor(_CONNECTIONS)
        with progress, self._sent.open("a", encoding="utf-8") as sent:
            task = progress.add_task(description, total=sum(sizes.values()))
            try:
                done = pool.map(lambda name: self._remote.upload(name, self.folder / name), names)
                for name, _ in zip(names, done, strict=True):
                    sent.write(f"{hashes[name]}\t{name}\n")
                    sent.flush()
                    progress.advance(task, sizes[name])
            finally:
                pool.shutdown(cancel_futures=True)

    def _sent_before(self, hashes: dict[str, str]) -> Iterable[str]:
        lines = self._sent.read_text(encoding="utf-8").splitlines() if self._sent.exists() else []
        for line in lines:
            digest, _, name = line.partition("\t")
            if hashes.get(name) == digest:
                yield name


def _is_manifest(name: str) -> bool:
    return re.fullmatch(rf"([^/]+/)?{re.escape(_MANIFEST)}", name) is not None
