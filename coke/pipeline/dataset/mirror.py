"""Index files of a remote data set, copied to the local disk once for all processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from coke.files import lock
from coke.files.durable import draft_of
from coke.pipeline.dataset.manifest import MANIFEST_NAME
from coke.pipeline.remote.remote import Remote


def mirror_manifest(remote: Remote, cache: Path) -> Path:
    """The local folder of a remote data set, its manifest in it.

    The folder is named for the hash of the manifest, so that a data set that changes behind its
    URL never meets files of the old one.

    Raises:
        FileNotFoundError: there is no data set at the URL.
        ValueError: it cannot be read.
    """
    manifest = remote.read(MANIFEST_NAME)
    digest = hashlib.sha256(manifest).hexdigest()[:16]
    folder = cache / f"{remote.url.rpartition('/')[2]}-{digest}"
    (folder / "containers").mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        with draft_of(path, shared=True) as draft:
            draft.write_bytes(manifest)
    return folder


def fetch_file(remote: Remote, name: str, folder: Path, sha256: str) -> Path:
    """A file of a remote data set in its local folder, downloaded once for all processes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or its hash is not the manifest's.
    """
    path = folder / name
    if path.is_file():
        return path
    with (folder / f"{name}.lock").open("wb") as file:
        lock.take(file, wait=True)
        if not path.is_file():
            with draft_of(path) as draft:
                remote.download(name, draft, sha256=sha256)
    return path
