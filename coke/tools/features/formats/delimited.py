"""`.csv` and `.tsv`: rows of text, separated by commas or tabs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.tools.features.formats.delimited_columns import (
    Columns,
    chosen_columns,
    header_of,
    is_id,
    is_number,
    is_plain,
    number_in,
)
from coke.tools.features.formats.feature_file import FeatureFile

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SHOWN = 40  # characters of a cell in a message


class DelimitedFile(FeatureFile):
    """A table of text in UTF-8; numbers have a decimal point, whatever the locale.

    The first row is a header if no cell of it is a number. Columns ``id`` and ``key`` hold the ids
    and keys of the rows; so does a first column without a name, since pandas writes its index that
    way. All other columns are dimensions. Opening reads the file once, to count its rows.

    Args:
        key: the column that holds the keys or ids of the rows; or the common name of numbered
            columns (``f0``, ``f1``, ...), which are then the only dimensions.

    Raises:
        ValueError: rows differ in length, a column holds text, there is no such column, or the file
            is no text in UTF-8.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        self.dtype = "float64"
        self._separator = _separator(path)
        first, second = [*(cells for _, cells in islice(self._rows(header=True), 2)), [], []][:2]
        if not first:
            raise ValueError(f"{path} has no rows; leave it out")
        header = header_of(path, first, second)
        self._has_header = header is not None
        names = header or [str(column) for column in range(len(first))]
        self._all = names
        chosen = chosen_columns(path, names, key, has_header=self._has_header)
        self.rows, whole = self._counted(chosen)
        self._ids = next((column for column in chosen.naming if whole[column]), None)
        self._keys = next((column for column in chosen.naming[::-1] if column != self._ids), None)
        self.has_ids, self.has_keys = self._ids is not None, self._keys is not None
        self._dimensions = chosen.dimensions
        self.columns = tuple(names[column] for column in chosen.dimensions)
        self.width = len(self.columns)
        self.what = f"{self.width} columns {self.columns[0]} to {self.columns[-1]}"
        if self.width == 1:
            self.what = f"column {self.columns[0]}"

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        start = 0
        for rows in _grouped(self._rows(), size):
            try:
                numbers = [number for _, cells in rows for number in self._numbers(cells)]
            except ValueError:
                raise self._no_number(start, rows) from None
            yield np.array(numbers).reshape(len(rows), self.width)
            start += len(rows)

    def ids(self, size: int) -> Iterator[NDArray[Any]]:
        assert self._ids is not None
        for rows in _grouped(self._rows(), size):
            yield np.array([int(cells[self._ids]) for _, cells in rows], dtype=np.int64)

    def keys(self, size: int) -> Iterator[list[str]]:
        assert self._keys is not None
        for rows in _grouped(self._rows(), size):
            yield [cells[self._keys] for _, cells in rows]

    def _counted(self, chosen: Columns) -> tuple[int, dict[int, bool]]:
        """The number of rows, and for each naming column whether all its cells are ids.

        Raises:
            ValueError: there are no rows, a row has another length or no key, or a dimension of
                the first row is text.
        """
        count, whole = 0, dict.fromkeys(chosen.naming, True)
        for line, cells in self._rows():
            for column in chosen.naming:
                if not cells[column]:
                    raise ValueError(
                        f"{self.path} has no value in row {count} (line {line}), column "
                        f"{self._all[column]!r}, which names the rows; fill it, or leave the "
                        "column out"
                    )
                whole[column] = whole[column] and is_id(cells[column])
            if not count:
                self._check_first(cells, chosen)
            count += 1
        if not count:
            raise ValueError(f"{self.path} has a header and no rows; leave it out")
        return count, whole

    def _check_first(self, cells: list[str], chosen: Columns) -> None:
        texts = [j for j in chosen.dimensions if cells[j].strip() and not is_number(cells[j])]
        if texts:
            named = ", ".join(f"{self._all[j]!r} ({_short(cells[j])})" for j in texts[:5])
            where = "" if self._has_header else " has no header and"
            raise ValueError(
                f"{self.path}{where} has text in column {named}: leave such columns out, or "
                f"give --key {self._all[texts[0]]} if that one names the rows"
            )

    def _numbers(self, cells: list[str]) -> Iterable[float]:
        """The numbers of one row. Checking all its cells at once is faster than one by one."""
        chosen = [cells[j] for j in self._dimensions]
        return map(float if is_plain("".join(chosen)) else number_in, chosen)

    def _no_number(self, start: int, rows: list[tuple[int, list[str]]]) -> ValueError:
        """An error that names the first cell that is no number."""
        row, line, column, cell = next(
            (row, line, column, cells[column])
            for row, (line, cells) in enumerate(rows, start)
            for column in self._dimensions
            if not is_number(cells[column])
        )
        found = f"{_short(cell)}, which is no number," if cell.strip() else "no value (NaN)"
        hint = "write numbers with a decimal point" if "," in cell else "leave the row out"
        return ValueError(
            f"{self.path} has {found} in row {row} (line {line}), column {self._all[column]!r}; "
            f"{hint}"
        )

    def _rows(self, *, header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of all rows that are not blank; with the header only on request."""
        with _text_of(self.path) as file:
            reader = csv.reader(file, delimiter=self._separator)
            skip = 0 if header else int(self._has_header)
            blank, width = 0, 0
            for cells in reader:
                if not cells:
                    blank = blank or reader.line_num
                    continue
                if blank and len(cells) == 1:
                    raise ValueError(
                        f"{self.path} has a blank line {blank} before other rows; remove it"
                    )
                width = width or len(cells)
                if len(cells) != width:
                    raise ValueError(
                        f"{self.path} has {len(cells)} cells in line {reader.line_num}, {width} in "
                        "the first: all rows need the same number"
                    )
                if skip:
                    skip -= 1
                else:
                    yield reader.line_num, cells


@contextmanager
def _text_of(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file; raises ValueError if they are no table of text in UTF-8."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text (byte {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table of text ({error}); write it again") from error


def _separator(path: Path) -> str:
    """The separator of the suffix; a semicolon if only that is in the first line of a ``.csv``."""
    separator = SEPARATORS[path.suffix.lower()]
    if separator != ",":
        return separator
    with _text_of(path) as lines:
        first = next(iter(lines), "")
    return ";" if ";" in first and "," not in first else ","


def _grouped(
    rows: Iterator[tuple[int, list[str]]], size: int
) -> Iterator[list[tuple[int, list[str]]]]:
    while group := list(islice(rows, size)):
        yield group


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= _SHOWN else cell[: _SHOWN - 3] + "...")
