"""The columns of a table of text: which ones are dimensions, and which hold ids and keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coke.tools.features.formats.feature_file import LISTED

_NAMING = ("id", "key")  # columns that hold ids and keys, in lower case
_INDEX = ("", "unnamed: 0")  # names that pandas gives the column of its index
_WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_LARGEST = 2**63 - 1
_SURELY = 8  # columns from which on a row 0, 1, 2, ... is taken for a header: data hardly begin so


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Numbers of columns, counted from 0.

    Attributes:
        naming: columns that may hold ids or keys; ids are looked for in this order.
        dimensions: columns that hold the features, in their order.
    """

    naming: tuple[int, ...]
    dimensions: tuple[int, ...]


def header_of(path: Path, first: Sequence[str], second: Sequence[str]) -> list[str] | None:
    """Names of the columns, if the first row is a header; None if it holds data.

    A header holds no numbers. Or it counts the columns, 0, 1, 2, ..., as pandas does for columns
    without names; columns with a name may come before them.

    Raises:
        ValueError: the first row counts the columns, but could also be data.
    """
    names = [cell.strip() for cell in first]
    names[0] = names[0].lstrip("# ")  # numpy writes a header as a comment
    numbers = [name for name in names if is_number(name)]
    if not numbers:
        return names if any(names) else None
    counted = [str(i) for i in range(len(numbers))]
    if numbers != counted or names[-len(numbers) :] != counted:
        return None
    if any(names) and not any(names[: -len(numbers)]) and len(numbers) < len(names):
        return names  # the columns before them are pandas' index, which has no name
    if len(numbers) >= _SURELY or any(is_number(c) and not is_id(c.strip()) for c in second):
        return names
    if len(names) == 1:
        return None
    raise ValueError(
        f"{path} begins with {','.join(names)}, which may be a header or a row; give the columns "
        "names, such as x0,x1, or remove the header"
    )


def chosen_columns(
    path: Path, names: Sequence[str], key: str | None, *, has_header: bool
) -> Columns:
    """Decides which columns are dimensions and which hold ids or keys.

    Args:
        names: names of the columns; their numbers if there is no header.
        key: a column that holds ids or keys, or the common name of numbered columns.

    Raises:
        ValueError: two columns have the same name, there is no such column, or no dimension.
    """
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"{path} has two columns named {twice!r}; rename one, or leave it out")
    naming, lower = [], [name.lower() for name in names]
    if has_header:
        naming = [lower.index(name) for name in _NAMING if name in lower]
    index = [0] if has_header and lower[0] in _INDEX else []
    dimensions = [column for column in range(len(names)) if column not in [*naming, *index]]
    naming = naming or index
    if key is not None:
        numbered = re.compile(re.escape(key) + r"(\d+)", re.ASCII)
        family = [(int(match[1]), j) for j in dimensions if (match := numbered.fullmatch(names[j]))]
        if key in names:
            naming = [list(names).index(key)]
            dimensions = [column for column in dimensions if column not in naming]
        elif family and has_header:
            dimensions = [column for _, column in sorted(family)]
        else:
            raise ValueError(
                f"{path} has no column {key!r}, nor numbered columns {key}0, {key}1, ... (--key); "
                f"its columns are {listed}"
            )
    if not dimensions:
        raise ValueError(f"{path} has no columns of features; its columns are {listed}")
    return Columns(naming=tuple(naming), dimensions=tuple(dimensions))


def number_in(cell: str) -> float:
    """The number in a cell, which has a decimal point; NaN and infinity count as numbers.

    Raises:
        ValueError: the cell holds no number.
    """
    if not is_plain(cell):
        raise ValueError(cell)
    return float(cell)


def is_plain(text: str) -> bool:
    """Whether a text lacks what only Python takes for a part of a number, such as 1_000."""
    return "_" not in text and text.isascii()


def is_id(cell: str) -> bool:
    """Whether a cell is a whole number of 64 bits in its usual form: 7 is an id, 007 is a key."""
    return bool(_WHOLE.fullmatch(cell)) and -_LARGEST <= int(cell) <= _LARGEST


def is_number(cell: str) -> bool:
    """Whether :func:`number_in` finds a number in a cell."""
    try:
        number_in(cell)
    except ValueError:
        return False
    return True
