"""Prints tables so that no terminal is too narrow for their figures."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

_FOLDED = 8  # characters per line that a column gets at least whose cells may be folded anywhere
_BORDERS = 3  # characters per column for its border and padding, and one for the last border


def print_table(console: Console, table: Table, *, highlight: bool | None = None) -> None:
    """Prints a table with every word whole; a terminal too narrow for it breaks the lines.

    Rich alone cuts words off at the terminal's width (80 characters in a pipe), and with them the
    digits of figures. A column with ``overflow="fold"`` loses nothing, so it may get narrow.
    """
    for column in table.columns:
        if column.overflow != "fold":
            column.min_width = _longest(console, column)
    needed = sum((c.min_width or _FOLDED) + _BORDERS for c in table.columns) + 1
    if needed <= console.width:
        console.print(table, highlight=highlight)
        return
    table.width = needed
    console.print(table, highlight=highlight, crop=False, no_wrap=True, overflow="ignore")


def _longest(console: Console, column: Column) -> int:
    """Characters of a column's longest word, or of its longest line where it may not wrap."""
    from rich.measure import Measurement

    unlimited = console.options.update(max_width=10_000)
    sizes = (
        Measurement.get(console, unlimited, cell) for cell in chain([column.header], column.cells)
    )
    return max(size.maximum if column.no_wrap else size.minimum for size in sizes)
