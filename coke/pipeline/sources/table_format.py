"""The form of a table: its delimiter, its columns, and paths that Windows wrote."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coke.pipeline.sources import storage
from coke.pipeline.sources.keys import to_system
from coke.pipeline.sources.source import is_image_name
from coke.pipeline.sources.splits import split_in_name

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image_path",
                "image", "img", "key")  # fmt: skip
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name", "wnid", "labels",
                 "class_id", "classid")  # fmt: skip
SPLIT_COLUMN = "split"
_DELIMITERS = ("\t", ",", ";", "|", " ")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SEP_LINE = re.compile(r'"?sep=(.)"?\r?')  # Excel's first line


@dataclass(frozen=True)
class Columns:
    """Places of the columns that are read, and the names of all, where there is a header."""

    count: int
    path: int
    label: int | None
    split: int | None
    names: tuple[str, ...] = ()


class UnreadSplits:
    """Columns of a table that is not split, each of whose cells names a split."""

    def __init__(self, columns: Columns) -> None:
        places = range(len(columns.names)) if columns.split is None else ()
        self._names = columns.names
        self._seen: dict[int, dict[str, str]] = {
            i: {} for i in places if i not in (columns.path, columns.label)
        }

    def look(self, cells: Sequence[str]) -> None:
        """Takes a row into account."""
        for i in list(self._seen):
            split = split_in_name(cells[i].strip())
            if split is None:
                del self._seen[i]
            else:
                self._seen[i].setdefault(split, cells[i].strip())

    def notes(self, where: str) -> list[str]:
        return [
            f"The column {self._names[i]} of {where} names splits ({', '.join(seen.values())}) and "
            f"is not read: call it {SPLIT_COLUMN} to keep them apart."
            for i, seen in self._seen.items()
            if len(seen) > 1
        ]


def without_sep_line(text: str) -> tuple[str, str | None]:
    """A table without Excel's line ``sep=;``, and the delimiter that the line names."""
    first, _, rest = text.partition("\n")
    match = _SEP_LINE.fullmatch(first)
    return (rest, match[1]) if match else (text, None)


def delimiter_of(name: str, first: str) -> str:
    """The delimiter of a table, by its first line: the one that gives a column of paths a name.

    Args:
        name: of the file.
        first: line of it.
    """
    likely = [d for d in _DELIMITERS if d in first and (d != " " or not name.endswith(".csv"))]
    for delimiter in likely:
        if _first(_names(next(_rows(first, delimiter), [])), PATH_COLUMNS) is not None:
            return delimiter
    if name.lower().endswith(".tsv"):
        return "\t"
    return next((d for d in likely if d != "|"), ",")


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader([text], delimiter=delimiter, skipinitialspace=True)


def columns_of(cells: Sequence[str], where: str) -> tuple[Columns, bool]:
    """The columns' places, and whether the first line is a header.

    Raises:
        ValueError: nothing says which column has the paths.
    """
    names = _names(cells)
    path = _first(names, PATH_COLUMNS)
    label = _first(names, LABEL_COLUMNS)
    if path is not None:
        split = _first(names, (SPLIT_COLUMN,))
        return Columns(len(cells), path, label, split, tuple(names)), True
    if label is None and len(cells) <= 2 and is_image_name(names[0]):
        return Columns(len(cells), 0, 1 if len(cells) == 2 else None, None), False
    raise ValueError(
        f"{where} starts with the columns {', '.join(map(repr, cells))}; none is called "
        f"{', '.join(PATH_COLUMNS)}. Name them so, or leave out the header and give path and label"
    )


def _names(cells: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def with_slashes(path: str, root: str, where: str) -> str:
    """A path whose backslashes, as Windows writes them, are slashes.

    A path with backslashes that is the name of a file stays as it is.

    Raises:
        ValueError: it is an absolute path of a Windows machine.
    """
    literal = storage.join(root, path)
    if not storage.is_url(literal) and os.path.lexists(to_system(literal)):
        return path
    if _DRIVE.match(path) or path.startswith("\\\\"):
        raise ValueError(
            f"{where} has the path {path}, which is of a Windows machine; make the paths relative "
            "to the table"
        )
    return path.replace("\\", "/")
