"""Pieces of Markdown that hold any text: names may have marks, line ends and `<script>` in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath


def code(text: object) -> str:
    """A span of code that shows the text as it is; signs that print nothing are escaped."""
    shown = "".join(sign if sign.isprintable() else _escape(sign) for sign in str(text))
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if not shown.strip() or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Lines of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: int = 0) -> str:
    """A table of cells that are Markdown.

    Args:
        numbers: how many columns, counted from the right, hold numbers.
    """
    titles = list(head)
    marks = ["---"] * (len(titles) - numbers) + ["---:"] * numbers
    lines = [titles, marks, *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def last_part(location: str) -> str:
    """The last part of a path or URL: the others say where it lay on somebody's machine."""
    return PurePosixPath(location.replace("\\", "/")).name or location


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
