"""Parquet files with images in a column, as the Hugging Face Hub holds them.

An image is found by (file, row group, row). Parquet is read a row group at a time, so a process
keeps the row groups that it used last: neighbours in a file cost one read.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coke.files.lookalike import HEAD, lookalike
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
from coke.pipeline.sources.labels import Label
from coke.pipeline.sources.listing import Listing
from coke.pipeline.sources.splits import by_split

if TYPE_CHECKING:
    import pyarrow as pa

_CACHE_BYTES = 256 << 20  # of row groups, per process; the one in use may be larger
_MOST_TRANSFERRED = 10 << 30  # bytes from a URL, beyond ten times those of the collection
_LARGEST_ROW_GROUP = 2 << 30  # bytes: a worker holds a row group whole


@dataclass(frozen=True)
class ParquetCells:
    """Images in cells of parquet files.

    Attributes:
        paths: the files, as paths or URLs.
        column: of the images; ``image.bytes`` is a field of a struct.
        cells: (n, 3) int32: index into ``paths``, row group, row within it.
    """

    paths: tuple[str, ...]
    column: str
    cells: NDArray[np.int32]

    def read(self, i: int) -> bytes:
        _, group, row = self.cells[i].tolist()
        data = _row_groups.get(self.path(i), self.column, group)[row].as_py()
        if data is None:
            raise OSError(errno.ENODATA, "the cell holds no bytes (the image is not in the file)")
        return bytes(data)

    def describe(self, i: int) -> str:
        _, group, row = self.cells[i].tolist()
        return f"row {row} of row group {group} of {self.path(i)}"

    def path(self, i: int) -> str:
        return self.paths[int(self.cells[i, 0])]

    def take(self, positions: Sequence[int]) -> ParquetCells:
        chosen = self.cells[np.asarray(positions, dtype=np.int64)]
        used, files = np.unique(chosen[:, 0], return_inverse=True)
        chosen[:, 0] = files
        return ParquetCells(tuple(self.paths[i] for i in used), self.column, chosen)


def drafts(listing: Listing, labels: str) -> Drafts:
    """Splits of a folder of parquet files, or one file.

    An image's key is its path, where the images of a split have one each and no two the same;
    otherwise ``<file>/<row>``, both without regard for row groups.

    Raises:
        ValueError: there are no parquet files, they are damaged, their columns are not understood,
            or pyarrow is missing.
    """
    files = list(listing.names) if listing.alone else listing.ending(".parquet")
    if not files:
        raise ValueError(
            f"no .parquet files in {listing.src}; choose another source than 'parquet'"
        )
    splits = {
        split: _draft(listing, names, labels)
        for split, names in by_split(files, listing.root).items()
    }
    return Drafts(
        splits=splits, beside=unread(listing, splits, "the images are in the .parquet files")
    )


def _draft(listing: Listing, names: list[str], labels: str) -> Draft:
    parts = [_read_part(listing.path(name), labels == "auto") for name in names]
    columns = parts[0].columns
    for name, part in zip(names, parts, strict=True):
        if part.columns != columns:
            raise ValueError(
                f"{listing.path(name)} has its images and labels in {part.columns} and "
                f"{listing.path(names[0])} in {columns}; ingest them apart"
            )
    keys = keys_of(names, [part.paths for part in parts])
    if not keys:
        raise ValueError(
            f"the parquet files have no rows: {listing.path(names[0])} and {len(names) - 1} more"
        )
    cells = [
        np.column_stack([np.full(len(part.cells), i, dtype=np.int32), part.cells])
        for i, part in enumerate(parts)
    ]
    if storage.is_url(listing.root):
        _check_transfer(keys, parts, listing)
    draft = Draft(
        keys=keys,
        labels=labels_together(keys, [part.labels for part in parts]),
        images=ParquetCells(
            tuple(listing.path(name) for name in names), columns.image, np.concatenate(cells)
        ),
        origin=listing.path(names[0]) if len(names) == 1 else listing.root,
        classes=columns.classes,
        opened=names,
        inside=sum(len(part.cells) for part in parts),
        notes=no_labels(columns, parts[0].names, listing.path(names[0]))
        if labels == "auto"
        else (),
    )
    return labelled_by_folder(draft) if labels == "folders" else draft


def _check_transfer(keys: list[str], parts: list[_Part], listing: Listing) -> None:
    """Refuses to read a shuffled collection over a network: a row group for every image.

    Raises:
        ValueError: reading in the order of keys transfers the collection many times over.
    """
    groups = [(i, int(g)) for i, part in enumerate(parts) for g in part.cells[:, 0]]
    size = {(i, g): n for i, part in enumerate(parts) for g, n in enumerate(part.group_bytes)}
    kept: OrderedDict[tuple[int, int], int] = OrderedDict()  # what one process would hold
    read = held = 0
    for i in sorted(range(len(keys)), key=keys.__getitem__):
        if groups[i] not in kept:
            kept[groups[i]] = size[groups[i]]
            read, held = read + size[groups[i]], held + size[groups[i]]
        kept.move_to_end(groups[i])
        while len(kept) > 1 and held > _CACHE_BYTES:
            held -= kept.popitem(last=False)[1]
    if read > _MOST_TRANSFERRED + 10 * sum(size.values()):
        raise ValueError(
            f"the images in {listing.src} are not in the order of their paths: to ingest them in "
            f"that order, up to {read / 1e9:,.0f} GB would be transferred, for "
            f"{sum(size.values()) / 1e9:,.1f} GB of images; download them first, and give the "
            "local folder"
        )


@dataclass(frozen=True)
class _Part:
    """The contents of one file: (n, 2) int32 of row group and row; paths and labels of the images.

    ``names`` are of all its columns.
    """

    columns: Columns
    names: list[str]
    group_bytes: list[int]
    cells: NDArray[np.int32]
    paths: list[str | None]
    labels: list[Label]


def _read_part(path: str, wants_labels: bool) -> _Part:
    with _opened(path) as file:
        columns, names = columns_of(file.schema_arrow, path), file.schema_arrow.names
        sizes, group_bytes = [], []
        for group in range(file.metadata.num_row_groups):
            about = file.metadata.row_group(group)
            if about.total_byte_size > _LARGEST_ROW_GROUP:
                raise ValueError(
                    f"row group {group} of {path} has {about.total_byte_size:,} bytes and is read "
                    f"whole; write the file with row groups of at most {_LARGEST_ROW_GROUP:,} "
                    "bytes (a few hundred images)"
                )
            sizes.append(about.num_rows)
            group_bytes.append(about.total_byte_size)
        wanted = [c for c in (columns.path, columns.label if wants_labels else None) if c]
        table = file.read(columns=wanted, use_threads=False) if wanted else None
        count = sum(sizes)
        paths = cells_of(table, columns.path).to_pylist() if columns.path else [None] * count
        labels = (
            labels_of_column(table, columns.label, path) if wants_labels and columns.label else None
        )
    rows = [np.arange(size, dtype=np.int32) for size in sizes]
    cells = np.column_stack(
        [
            np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            np.concatenate([*rows, np.empty(0, dtype=np.int32)]),
        ]
    )
    return _Part(
        columns, names, group_bytes, cells.astype(np.int32), paths, labels or [None] * count
    )


class _RowGroups:
    """The image columns of the row groups that were read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int, str], pa.ChunkedArray] = OrderedDict()

    def get(self, path: str, column: str, group: int) -> pa.ChunkedArray:
        key = (path, column, group, storage.stamp(path))
        if key not in self._kept:
            try:
                with _opened(path) as file:
                    table = file.read_row_group(group, columns=[column], use_threads=False)
            except ValueError as error:
                if isinstance(error.__cause__, ConnectionError):
                    raise error.__cause__ from None
                raise OSError(errno.EIO, str(error)) from error
            self._kept[key] = cells_of(table, column)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(c.nbytes for c in self._kept.values()) > _CACHE_BYTES:
            self._kept.popitem(last=False)
        return self._kept[key]


_row_groups = _RowGroups()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A parquet file.

    Raises:
        ValueError: it is damaged or cannot be read, or pyarrow is missing.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package pyarrow: pip install 'coke[parquet]'"
        ) from error
    with storage.opened(path) as raw:
        try:
            # Without this, pyarrow would buffer whole column chunks beside the decoded ones.
            with parquet.ParquetFile(pa.PythonFile(raw, mode="r"), pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            raw.seek(0)
            if kind := lookalike(raw.read(HEAD) or b""):
                raise ValueError(f"{path} is no parquet file, but {kind}") from error
            raise ValueError(f"{path} is damaged ({error}); download it again") from error
