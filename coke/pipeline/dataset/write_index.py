"""Writing the index files of a data set, beside its containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.files.hashing import file_sha256
from coke.pipeline.dataset.index import INDEX_DTYPE
from coke.pipeline.dataset.manifest import FORMAT_NAME, FORMAT_VERSION, Container, Manifest


def write_index(
    folder: Path,
    *,
    rows: NDArray[np.void],
    crc32: NDArray[np.uint32],
    keys: list[str],
    classes: list[str],
    containers: list[Container],
    rejected: int,
    settings: dict[str, Any],
    storage: str = "wds",
    contents: NDArray[np.uint8] | None = None,
    base: str = "",
) -> Manifest:
    """Writes the index files and, last, ``manifest.json``.

    Args:
        folder: of the data set.
        rows: (N,) of :data:`INDEX_DTYPE`, one per id.
        crc32: (N,) of each stored image, by which a damaged container's images are named.
        keys: (N,) relative keys in the source.
        classes: class name of each label.
        containers: files of images, in the order of their ids.
        rejected: number of images of the source that were left out.
        settings: options of the ingest, kept in the manifest.
        storage: format of the containers, ``"wds"`` or ``"ffcv"``.
        contents: (N, 32) SHA-256 of each source file, by which a later ingest recognises renamed
            files; zeros where the hash was not taken. Training never reads it.
        base: identity of the data set whose ids were kept.
    """
    assert len(rows) == len(keys) and rows.dtype == INDEX_DTYPE
    np.save(folder / "index.npy", rows)
    np.save(folder / "checksums.npy", crc32)
    if contents is not None:
        assert contents.shape == (len(rows), 32) and contents.dtype == np.uint8
        np.save(folder / "contents.npy", contents)
    (folder / "keys.txt").write_bytes("".join(f"{key}\n" for key in keys).encode())
    manifest = Manifest(
        format=FORMAT_NAME,
        version=FORMAT_VERSION,
        storage=storage,
        count=len(rows),
        rejected=rejected,
        classes=classes,
        keys_sha256=file_sha256(folder / "keys.txt"),
        index_sha256=file_sha256(folder / "index.npy"),
        checksums_sha256=file_sha256(folder / "checksums.npy"),
        settings=settings,
        containers=containers,
        tombstones=int((rows["length"] == 0).sum()),
        contents_sha256="" if contents is None else file_sha256(folder / "contents.npy"),
        base=base,
    )
    manifest.save(folder)
    return manifest
