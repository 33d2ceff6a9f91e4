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
    sizes = [_sizes(console, column) for column in table.columns]
    borders = _BORDERS * len(sizes) + 1
    if sum(widest for _, widest in sizes) + borders <= console.width:
        console.print(table, highlight=highlight)
        return
    needed = sum(smallest for smallest, _ in sizes) + borders
    # Rich would shrink columns alike, those too that cannot be narrower, and cut off the rest.
    widths = _widths(sizes, max(needed, console.width) - borders)
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    if needed <= console.width:
        console.print(table, highlight=highlight)
        return
    table.width = needed
    console.print(table, highlight=highlight, crop=False, no_wrap=True, overflow="ignore")


def _widths(sizes: list[tuple[int, int]], total: int) -> list[int]:
    """The columns' smallest widths, and what is left of ``total`` shared among them evenly."""
    widths = [smallest for smallest, _ in sizes]
    while left := total - sum(widths):
        narrow = [i for i, (_, widest) in enumerate(sizes) if widths[i] < widest]
        for i in narrow[:left]:
            widths[i] += 1
    return widths


def _sizes(console: Console, column: Column) -> tuple[int, int]:
    """Characters of a column's longest word, and of its longest line, which may wrap or not."""
    from rich.measure import Measurement

    unlimited = console.options.update(max_width=10_000)
    cells = [
        Measurement.get(console, unlimited, cell) for cell in chain([column.header], column.cells)
    ]
    widest = max(cell.maximum for cell in cells)
    if column.overflow == "fold":
        return min(_FOLDED, widest), widest
    return (widest if column.no_wrap else max(cell.minimum for cell in cells)), widest
