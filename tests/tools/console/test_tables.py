"""Tables in terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from coke.tools.console.tables import print_table


def printed(width: int, *, path: str = "short") -> str:
    table = Table(title="data set")
    table.add_column("split")
    table.add_column("where", overflow="fold")
    table.add_column("time", no_wrap=True)
    table.add_column("images", justify="right")
    table.add_row("training images", path, "61.0 ms (48 %)", "1,281,167,123")
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [1, 20, 40, 50, 80, 200])
def test_no_width_cuts_a_figure_or_a_word(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    for whole in ("split", "training", "short", "61.0 ms (48 %)", "1,281,167,123"):
        assert whole in text


def test_lines_fit_a_terminal_that_is_wide_enough() -> None:
    # Words of 8, 8 (folded), 14 and 13 characters, 3 for borders and padding of each, and one.
    needed = 8 + 8 + 14 + 13 + 4 * 3 + 1
    assert max(map(len, printed(needed, path="x" * 500).splitlines())) == needed


def test_a_path_is_folded_and_stays_whole() -> None:
    path = "abcdefghij" * 12
    text = printed(80, path=path)
    assert max(map(len, text.splitlines())) <= 80
    cells = [line.split("│")[2].strip() for line in text.splitlines() if line.startswith("│")]
    assert "".join(cells) == path


@pytest.mark.parametrize("width", range(74, 110, 5))
def test_long_words_are_not_paid_for_by_the_last_column(width: int) -> None:
    """One column's words are so long that it cannot be narrower, the others' are short."""
    table = Table(title="fine-tuned")
    table.add_column("features")
    for name in ("top-1 %", "95 % interval", "held-out top-1 %", "learning rate", "weight decay"):
        table.add_column(name, justify="right")
    table.add_row("random initialisation", "91.25", "83.9 to 93.0", "90.11", "0.1", "1e-05")
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for whole in ("initialisation", "learning", "weight", "decay", "1e-05"):
        assert whole in text
