"""The choice among a table's columns: which ones hold the features, ids and keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from coke.tools.features.formats.feature_file import LISTED, USUAL

if TYPE_CHECKING:
    import pyarrow as pa

ID_COLUMNS = ("id", "key")
_NUMBERED = re.compile(r"(.*?)(\d+)")


def chosen_columns(path: Path, schema: pa.Schema, key: str | None) -> list[str]:
    """The columns that hold the features: one column of lists, or one per dimension, in order.

    Raises:
        ValueError: there are no such columns, or several are possible.
    """
    listed = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:LISTED])
    if len(schema) > LISTED:
        listed += ", ..."
    lists = [field.name for field in schema if is_list(field.type)]
    plain = [field.name for field in schema if _is_number(field.type)]
    families: dict[str, list[tuple[int, str]]] = {}
    for name in plain:
        if (match := _NUMBERED.fullmatch(name)) and name not in ID_COLUMNS:
            families.setdefault(match[1], []).append((int(match[2]), name))
    if key is not None:
        if key in lists:
            return [key]
        if key in families:
            return [name for _, name in sorted(families[key])]
        raise ValueError(
            f"{path} has no column of lists {key!r}, nor numbered columns {key}0, {key}1, ... "
            f"(--key); its columns are {listed}"
        )
    if len(lists) == 1:
        return lists
    if USUAL in lists:
        return [USUAL]
    if len(lists) > 1:
        raise ValueError(f"{path} has several columns of lists: {listed}; choose one with --key")
    if len(families) == 1:
        return [name for _, name in sorted(next(iter(families.values())))]
    if len(families) > 1:
        raise ValueError(
            f"{path} has several families of numbered columns: "
            + ", ".join(f"{name}... ({len(found)})" for name, found in families.items())
            + "; choose one with --key NAME"
        )
    floating = [name for name in plain if _is_floating(schema.field(name).type)]
    if not floating:
        raise ValueError(
            f"{path} has no column of lists and no columns of floating-point numbers; its columns "
            f"are {listed}"
        )
    return floating


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers."""
    import pyarrow as pa

    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or _is_floating(kind)


def _is_floating(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind))


def is_whole(schema: pa.Schema, column: str) -> bool:
    """Whether the table has this column and it holds whole numbers."""
    import pyarrow as pa

    return column in schema.names and pa.types.is_integer(schema.field(column).type)


def is_text(schema: pa.Schema, column: str) -> bool:
    """Whether the table has this column and it holds texts."""
    import pyarrow as pa

    if column not in schema.names:
        return False
    kind = schema.field(column).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
