"""Text files are UTF-8 whatever the locale: each call that opens one names the encoding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def opened_without_encoding(source: str) -> Iterator[int]:
    """Lines that open a text file, as far as a call's form shows it, and leave the encoding open.

    `x.open()` without a mode is left out: `x` may be an archive or a remote file, which open bytes.
    """
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(k.arg == "encoding" for k in call.keywords):
            continue
        is_method = isinstance(call.func, ast.Attribute)
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in ("read_text", "write_text"):
            if len(call.args) == (name == "write_text"):
                yield call.lineno
        elif name == "open":
            modes = call.args if is_method else call.args[1:]
            mode = modes[0] if modes else None
            text = isinstance(mode, ast.Constant) and mode.value in ("r", "w", "a", "x", "r+", "w+")
            if text or (mode is None and not is_method):
                yield call.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("p.read_text()", True),
        ("p.read_text(encoding='utf-8')", False),
        ("p.write_text(x)", True),
        ("p.write_text(x, 'utf-8')", False),
        ("open(p)", True),
        ("open(p, 'rb')", False),
        ("p.open('a')", True),
        ("p.open('wb')", False),
        ("Image.open(p)", False),
    ],
)
def test_the_check_sees(source: str, found: bool) -> None:
    assert [*opened_without_encoding(source)] == [1] * found


def test_every_text_file_is_opened_with_its_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("coke", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in opened_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []
