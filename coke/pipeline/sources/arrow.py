"""Arrow files with images in a column, as ``save_to_disk`` of Hugging Face's datasets writes them.

They are mapped into memory, so an image is found by (file, row) and costs no reading of others.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.sources import storage
from coke.pipeline.sources.arrow_columns import (
    Columns,
    cells_of,
    columns_of,
    keys_of,
    labels_of_column,
    labels_together,
    no_labels,
)
from coke.pipeline.sources.draft import Draft, Drafts, labelled_by_folder, unread
from coke.pipeline.sources.keys import to_system
from coke.pipeline.sources.labels import Label
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.splits import by_split

if TYPE_CHECKING:
    import pyarrow as pa

_DICT, _STATE = "dataset_dict.json", "state.json"
_FILE_MAGIC = b"ARROW1"
_CACHE = re.compile(r"cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow")  # as datasets names them
_KEPT_OPEN = 16  # files per process


@dataclass(frozen=True)
class ArrowCells:
    """Images in cells of Arrow files.

    Attributes:
        paths: the files.
        column: of the images; ``image.bytes`` is a field of a struct.
        cells: (n, 2) int32: index into ``paths``, row.
    """

    paths: tuple[str, ...]
    column: str
    cells: NDArray[np.int32]

    def read(self, i: int) -> bytes:
        path = self.path(i)
        try:
            column = _column(path, self.column, storage.stamp(path))
        except ValueError as error:
            raise OSError(errno.EIO, str(error)) from error
        data = column[int(self.cells[i, 1])].as_py()
        if data is None:
            raise OSError(errno.ENODATA, "the cell holds no bytes (the image is not in the file)")
        return bytes(data)

    def describe(self, i: int) -> str:
        return f"row {self.cells[i, 1]} of {self.path(i)}"

    def path(self, i: int) -> str:
        return self.paths[int(self.cells[i, 0])]

    def take(self, positions: Sequence[int]) -> ArrowCells:
        chosen = self.cells[np.asarray(positions, dtype=np.int64)]
        used, files = np.unique(chosen[:, 0], return_inverse=True)
        chosen[:, 0] = files
        return ArrowCells(tuple(self.paths[i] for i in used), self.column, chosen)


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits of a folder of Arrow files, or one file. Keys are as those of parquet files.

    Raises:
        ValueError: there are no Arrow files, they are remote or damaged, their columns are not
            understood, or pyarrow is missing.
    """
    files = list(listing.names) if listing.alone else _data_files(listing)
    if not files:
        raise ValueError(f"no .arrow files in {listing.src}; choose another source than 'arrow'")
    if storage.is_url(listing.root):
        raise ValueError(
            f"{listing.src} holds Arrow files, which are mapped into memory; download them first"
        )
    groups = _by_folder(listing, files) or by_split(files, listing.root)
    splits = {split: _draft(listing, names, labels) for split, names in groups.items()}
    return Drafts(splits=splits, beside=unread(listing, splits, "the images are in Arrow files"))


def _data_files(listing: Listing) -> list[str]:
    """The Arrow files of a data set, without those that only cache results of its maps."""
    files = set(listing.ending(".arrow"))
    for state in [name for name in listing.names if name.rpartition("/")[2] == _STATE]:
        folder = state.removesuffix(_STATE)
        try:
            about = json.loads(listing.text(state))["_data_files"]
            data = {folder + file["filename"] for file in about}
        except (KeyError, TypeError, ValueError):
            continue  # another program's
        files -= {name for name in files if name.startswith(folder) and name not in data}
    # load_dataset writes no state.json; a map's result would be the same images once more.
    files = {name for name in files if not _CACHE.fullmatch(name.rpartition("/")[2])} or files
    return [name for name in listing.names if name in files]


def _by_folder(listing: Listing, files: list[str]) -> dict[str, list[str]] | None:
    """The splits of a saved ``DatasetDict``, which may have any names."""
    marks = [name for name in listing.names if name.rpartition("/")[2] == _DICT]
    if len(marks) != 1:
        return None
    prefix = marks[0].removesuffix(_DICT)
    groups: dict[str, list[str]] = {}
    for name in files:
        folder, slash, _ = name.removeprefix(prefix).partition("/")
        if not (name.startswith(prefix) and slash):
            return None
        groups.setdefault(folder, []).append(name)
    return groups if len(groups) > 1 else {"": files}


class _Part(NamedTuple):
    """The contents of one file: a path and a label for each row."""

    columns: Columns
    paths: list[str | None]
    labels: list[Label]
    names: list[str]  # of all columns


def _draft(listing: Listing, names: list[str], labels: str) -> Draft:
    paths = [listing.path(name) for name in names]
    parts = [_read_part(path, labels == "auto") for path in paths]
    columns = parts[0].columns
    for path, part in zip(paths, parts, strict=True):
        if part.columns != columns:
            raise ValueError(
                f"{path} has its images and labels in {part.columns} and {paths[0]} in {columns}; "
                "ingest them apart"
            )
    keys = keys_of(names, [part.paths for part in parts])
    if not keys:
        raise ValueError(f"the Arrow files have no rows: {paths[0]} and {len(names) - 1} more")
    counts = [len(part.paths) for part in parts]
    files = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
    rows = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    draft = Draft(
        keys=keys,
        labels=labels_together(keys, [part.labels for part in parts]),
        images=ArrowCells(tuple(paths), columns.image, np.column_stack([files, rows])),
        origin=paths[0] if len(paths) == 1 else listing.root,
        classes=columns.classes,
        opened=names,
        inside=sum(counts),
        notes=no_labels(columns, parts[0].names, paths[0]) if labels == "auto" else (),
    )
    return labelled_by_folder(draft) if labels == "folders" else draft


def _read_part(path: str, wants_labels: bool) -> _Part:
    table = _table(path)
    columns = columns_of(table.schema, path)
    count = table.num_rows
    paths = cells_of(table, columns.path).to_pylist() if columns.path else [None] * count
    labels: list[Label] = [None] * count
    if wants_labels and columns.label:
        labels = labels_of_column(table, columns.label, path)
    return _Part(columns, paths, labels, table.schema.names)


@lru_cache(maxsize=_KEPT_OPEN)
def _column(path: str, column: str, stamp: str) -> pa.ChunkedArray:
    """The images of a file, as it is at one ``stamp``."""
    return cells_of(_table(path), column)


def _table(path: str) -> pa.Table:
    """All rows of a file, in memory only where they are read.

    Raises:
        ValueError: it is damaged or cannot be read, or pyarrow is missing.
    """
    try:
        import pyarrow as pa
        from pyarrow import ipc
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package pyarrow: pip install 'coke[parquet]'"
        ) from error
    try:
        file = pa.memory_map(to_system(path))
        is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        file.seek(0)
        return (ipc.open_file(file) if is_file else ipc.open_stream(file)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); download it again") from error
