"""The features at a path: a file, a folder of files, or an embedding made by `coke embed`.

A folder that holds ``features.npy`` is one array with companions: ``ids.npy``, and ``keys.txt``
with a line per row. Any other folder holds feature files of one kind. They are read one after the
other in natural order (``part-2`` before ``part-10``); ``ids.npy`` beside them numbers all rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.clustering.point_array import float_type
from coke.clustering.stacked_rows import StackedRows
from coke.pipeline.dataset.open import is_dataset
from coke.tools.features.formats import SUFFIXES, TEXT_SUFFIXES, open_feature_file
from coke.tools.features.formats.feature_file import FeatureFile, state_of
from coke.tools.features.formats.npy import NpyFile, NpyIds

ARRAY, ARRAY_IDS, ARRAY_KEYS = "features.npy", "ids.npy", "keys.txt"
_BATCH_BYTES = 8 << 20  # size of the batches in which rows are read, as float32
_ID_BATCH = 1 << 16  # ids or keys that are read together
_CHANGED = "has changed while it was read; run again when nothing writes to it"


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features (N, D) in one file or several, with the ids or keys of their rows.

    Attributes:
        path: the file or folder that the user gave.
        files: the files in the order of their rows.
        ids_file: ``ids.npy`` beside the files, with a number or text for each row; None without it.
        keys_file: ``keys.txt`` beside the files, with a line for each row; None without it.
    """

    path: Path
    files: tuple[FeatureFile, ...]
    ids_file: NpyIds | None = None
    keys_file: Path | None = None

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def width(self) -> int:
        return self.files[0].width

    @property
    def dtype(self) -> str:
        return self.files[0].dtype

    @property
    def has_ids(self) -> bool:
        """Whether the rows have ids, which are whole numbers."""
        if self.ids_file is not None:
            return not self.ids_file.is_text
        return self.files[0].has_ids

    @property
    def has_keys(self) -> bool:
        """Whether the rows have keys, which are texts."""
        if self.keys_file is not None or (self.ids_file and self.ids_file.is_text):
            return True
        return self.ids_file is None and self.files[0].has_keys

    @property
    def mapped(self) -> NDArray[Any] | StackedRows | None:
        """All rows as memory maps; None if some are stored so that random reading would be slow."""
        maps = []
        for file in self.files:
            if not isinstance(file, NpyFile) or file.by_columns:
                return None
            maps.append(file.array)
        return maps[0] if len(maps) == 1 else StackedRows(maps)

    def describe(self) -> str:
        """The path and the part that is read, in a few words."""
        what = self.files[0].what
        text = f"{self.path}" if not what else f"{self.path} ({what})"
        return text if len(self.files) == 1 else f"{text}, {len(self.files)} files"

    def batches(self, *, directed: bool) -> Iterator[NDArray[Any]]:
        """Checked rows (B, D), in order: float32, or float64 where numbers have more digits.

        Args:
            directed: refuse zero vectors, since they have no direction.

        Raises:
            ValueError: a value that is not finite, a zero vector, damage, or a file that has
                changed; the message names file and row.
        """
        size = max(1, _BATCH_BYTES // (4 * self.width))
        for file in self.files:
            start = 0
            for raw_BD in file.batches(size):
                batch_BD = np.asarray(raw_BD, dtype=float_type(raw_BD.dtype))
                _check_values(file, start, batch_BD, directed)
                yield batch_BD
                start += len(batch_BD)
            if start != file.rows:
                raise ValueError(f"{file.path} {_CHANGED}")

    def ids(self) -> Iterator[NDArray[Any]]:
        """Ids (B,) int64 of the rows; needs ``has_ids``.

        Raises:
            ValueError: an id is too large for a signed integer of 64 bits.
        """
        parts = [self.ids_file] if self.ids_file is not None else self.files
        for part in parts:
            batches = part.batches(_ID_BATCH) if isinstance(part, NpyIds) else part.ids(_ID_BATCH)
            for ids_B in batches:
                if ids_B.dtype == np.uint64 and ids_B.size and ids_B.max() >= 2**63:
                    raise ValueError(
                        f"{part.path} has an id {ids_B.max()}; give ids below 2**63, or as text"
                    )
                yield ids_B.astype(
                    np.int64, copy=False
                )  # files of a folder may store ids in different types

    def keys(self) -> Iterator[list[str]]:
        """Keys of the rows; needs ``has_keys``."""
        if self.keys_file is not None:
            with self.keys_file.open(encoding="utf-8", newline="\n") as lines:
                while batch := [line.removesuffix("\n") for line in islice(lines, _ID_BATCH)]:
                    yield batch
            return
        if self.ids_file is not None:
            for texts in self.ids_file.batches(_ID_BATCH):
                yield texts.tolist()
            return
        for file in self.files:
            yield from file.keys(_ID_BATCH)

    def check_unchanged(self) -> None:
        """Raises ValueError if a file has changed since it was opened."""
        for file in self.files:
            if state_of(file.path) != file.state:
                raise ValueError(f"{file.path} {_CHANGED}")

    def check_ids(self) -> None:
        """Raises ValueError if an id occurs twice. Ids that do not ascend are sorted for that."""
        last, ascending, seen = None, True, []
        for ids_B in self.ids():
            ascending = ascending and bool((ids_B[1:] > ids_B[:-1]).all())
            ascending = ascending and (last is None or ids_B[0] > last)
            last = ids_B[-1]
            seen.append(ids_B)
        if ascending:
            return
        ids_N = np.concatenate(seen)
        del seen
        ids_N.sort()
        twice = np.flatnonzero(ids_N[1:] == ids_N[:-1])
        if len(twice):
            raise ValueError(
                f"{self.path} has id {ids_N[twice[0]]} more than once: labels by id would be "
                "ambiguous; give every row an id of its own, or none"
            )


def open_features(path: str | Path, key: str | None = None) -> Features:
    """Opens features. Only headers are read, but for tables of text, whose rows are counted.

    Args:
        path: a ``.npy``, ``.npz``, ``.parquet``, ``.safetensors``, ``.csv`` or ``.tsv`` file, a
            folder of files of one of these kinds, or a folder made by ``coke embed``.
        key: the member, tensor or column to read, if a file holds several.

    Raises:
        ValueError: the path holds no features; the message says what to change.
    """
    if "://" in str(path):
        raise ValueError(f"features {path} are at a URL; copy them to this machine first")
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"features {path} do not exist; give a file ({', '.join(SUFFIXES)}), a folder of such, "
            "or make some with `coke embed RUN DATA OUT`"
        )
    if path.is_dir() and not (path / ARRAY).is_file():
        return _folder_of_files(path, key)
    file = path / ARRAY if path.is_dir() else path
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"features {path} are no {', '.join(SUFFIXES)} file, nor a folder of such")
    opened = open_feature_file(file, key)
    if not isinstance(opened, NpyFile):
        return Features(path=path, files=(opened,))
    keys = file.with_name(ARRAY_KEYS) if file.name == ARRAY else None
    if keys is not None and keys.is_file():
        _check_lines(keys, opened.rows)
    else:
        keys = None
    ids = _ids_beside(file.parent, opened.rows, file) if file.name != ARRAY_IDS else None
    return Features(path=path, files=(opened,), ids_file=ids, keys_file=keys)


def _folder_of_files(folder: Path, key: str | None) -> Features:
    if is_dataset(folder):
        raise ValueError(
            f"{folder} is a data set of images; make features of it first: "
            f"`coke embed RUN {folder} FEATURES`"
        )
    paths = _feature_files_in(folder)
    first = paths[0]
    files = tuple(open_feature_file(path, key) for path in paths)
    for file in files:
        for found, expected in (
            (f"width {file.width}", f"width {files[0].width}"),
            (f"type {file.dtype}", f"type {files[0].dtype}"),
            (file.what, files[0].what),
        ):
            if found != expected:
                raise ValueError(
                    f"{file.path} has rows of {found}, {first} of {expected}: files of a folder "
                    "must be alike; convert one, or move it away"
                )
        if file.columns != files[0].columns:
            raise ValueError(
                f"{file.path} has its columns in another order than {first}, or has others: files "
                "of a folder must be alike; convert one, or move it away"
            )
        if (file.has_ids, file.has_keys) != (files[0].has_ids, files[0].has_keys):
            raise ValueError(
                f"one of {first} and {file.path} has ids, the other has not: give ids to all files "
                "of a folder, or to none"
            )
    ids = _ids_beside(folder, sum(file.rows for file in files), folder)
    return Features(path=folder, files=files, ids_file=ids)


def _feature_files_in(folder: Path) -> list[Path]:
    """The feature files of a folder, in natural order; tables of text only if there are no others.

    Raises:
        ValueError: the folder has no such files, or files of several kinds.
    """
    paths = [
        path
        for path in sorted(folder.iterdir(), key=_natural)
        if path.suffix.lower() in SUFFIXES
        and path.name != ARRAY_IDS
        and not path.name.startswith(".")
        and path.is_file()
    ]
    paths = [path for path in paths if path.suffix.lower() not in TEXT_SUFFIXES] or paths
    if not paths:
        raise ValueError(f"folder {folder} holds no feature files ({', '.join(SUFFIXES)})")
    first = paths[0]
    for path in paths:
        if path.suffix.lower() != first.suffix.lower():
            raise ValueError(
                f"folder {folder} mixes kinds of files: {first.name} and {path.name}; give a "
                "folder of one kind, or one file"
            )
    return paths


def _ids_beside(folder: Path, rows: int, of: Path) -> NpyIds | None:
    path = folder / ARRAY_IDS
    return NpyIds(path, rows, of) if path.is_file() else None


def _check_lines(keys: Path, rows: int) -> None:
    lines = 0
    with keys.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
    if lines != rows:
        raise ValueError(
            f"{keys} has {lines:,} lines, {ARRAY} beside it {rows:,} rows: give one key per row, "
            "or move it away"
        )


def _check_values(
    file: FeatureFile,
    start: int,
    batch_BD: NDArray[Any],
    directed: bool,
) -> None:
    # A sum is finite only if all its values are; only a sum that is not finite needs a closer look.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(batch_BD.sum())
    if suspicious and not (finite_BD := np.isfinite(batch_BD)).all():
        row, column = (int(i) for i in np.argwhere(~finite_BD)[0])
        name = repr(file.columns[column]) if file.columns else column
        raise ValueError(
            f"{file.path} has {batch_BD[row, column]} in row {start + row}, column {name}; only "
            "finite numbers can be clustered: leave such rows out"
        )
    if directed and not (nonzero_B := batch_BD.any(axis=1)).all():
        raise ValueError(
            f"{file.path} has a zero vector in row {start + int((~nonzero_B).argmax())}, which has "
            "no direction; leave it out, or use --metric euclidean"
        )


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that orders numbers in names by value: part-2 before part-10."""
    return [
        (0, int(part), part) if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]
