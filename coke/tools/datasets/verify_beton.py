"""How `coke verify` compares the tables of a `.beton` with the index, record by record."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.containers.beton import Beton, StoredImages
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container

_INGEST_FIELDS = {"image": "image", "label": "label", "id": "id"}


class _Tables:
    """The tables of a beton, looked up by the offset of an image.

    Raises:
        ValueError: the tables are damaged, or lack a field that the data set was made of.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        fields = settings.get("fields", _INGEST_FIELDS)
        beton = Beton(path)
        self.samples = len(beton)
        self.images: StoredImages = beton.images(fields["image"])
        self.ids = None if fields["id"] is None else beton.column(fields["id"])
        self.labels = None if fields["label"] is None else beton.column(fields["label"])
        self._order = np.argsort(self.images.offset, kind="stable")
        self._offsets = self.images.offset[self._order]

    def problem(self, row: np.void, number: str) -> str | None:
        """How the tables differ from a row of the index of id ``number``; None if they agree."""
        at = int(np.searchsorted(self._offsets, row["offset"]))
        if at == len(self._offsets) or self._offsets[at] != row["offset"]:
            return "the beton has no image there"
        sample = int(self._order[at])
        if self.ids is not None and str(self.ids[sample]) != number:
            return f"sample {sample} says id {self.ids[sample]}, not {number}"
        said: dict[str, NDArray[Any] | None] = {
            name: getattr(self.images, name) for name in ("length", "height", "width", "encoding")
        }
        for name, column in {**said, "label": self.labels}.items():
            found = -1 if column is None else int(column[sample])
            if found != int(row[name]):
                return f"sample {sample} says {name} {found}, the index {int(row[name])}"
        return None


def beton_problems(
    index: ImageIndex,
    container: Container,
    path: Path,
    keys: list[str],
    data: mmap.mmap,
    image_problem: Callable[[int, bytes], str | None],
) -> Iterator[str]:
    """One line per problem of one container.

    Args:
        index: the data set.
        container: which one, as the manifest has it.
        path: the file.
        keys: of all ids.
        data: the file's bytes.
        image_problem: what is wrong with the stored bytes of an id.
    """
    stop = min(container.stop, len(index))
    rows = index.rows[container.start : stop]
    live = int((rows["length"] > 0).sum())
    tables = None
    try:
        tables = _Tables(path, index.manifest.settings)
    except (OSError, ValueError) as error:  # the images may still be whole
        yield f"{path}: {str(error).removeprefix(f'{path}: ')}"
    if tables is not None and tables.samples != live:
        yield f"{path}: holds {tables.samples} samples, the index {live}"
    indexed = "indexed" in index.manifest.settings  # then FFCV's user numbered them: see the keys
    for image_id, row in enumerate(rows, start=container.start):
        if not row["length"]:
            continue  # a tombstone
        end = int(row["offset"]) + int(row["length"])
        problem = f"ends at byte {end}, the file at {len(data)}" if end > len(data) else None
        if problem is None and tables is not None:
            number = keys[image_id].lstrip("0") or "0" if indexed else str(image_id)
            problem = tables.problem(row, number)
        if problem is None:
            problem = image_problem(image_id, data[int(row["offset"]) : end])
        if problem is not None:
            where = f"offset {int(row['offset'])}, id {image_id}, key {keys[image_id]}"
            yield f"{path}: {where}: {problem}"
