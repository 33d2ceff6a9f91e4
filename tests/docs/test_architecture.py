"""docs/architecture.md says what the code says: the loop it quotes, the rooms and their floors."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from textwrap import dedent, indent

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FLOORS: tuple[tuple[str, ...], ...] = runpy.run_path(str(ROOT / "tests" / "test_imports.py"))[
    "FLOORS"
]


def quotes(page: str) -> list[tuple[str, str]]:
    """File and text of every block of code that begins with the name of its file."""
    return re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def is_in(quote: str, code: str) -> bool:
    """Whether the lines of a quote stand in the code one below the other, at any depth."""
    return any(indent(quote, " " * depth) in code for depth in range(0, 24, 4))


def test_a_quote_is_the_code() -> None:
    found = quotes(PAGE)
    assert [file for file, _ in found] == ["coke/tools/training/train.py"]
    for file, quote in found:
        assert is_in(quote, (ROOT / file).read_text(encoding="utf-8"))


def test_another_text_is_no_quote() -> None:
    code = dedent(
        """\
        def f():
            for a in b:
                c(a)

            d()
        """
    )
    assert is_in("for a in b:\n    c(a)\n\nd()\n", code)
    assert not is_in("for a in b:\n    c(b)\n", code)
    assert not is_in("for a in b:\n    d()\n", code)
    assert not is_in("for a in b:\nc(a)\n", code)


def test_the_floors_are_those_that_the_imports_are_held_to() -> None:
    (block,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [re.sub(r" \(.*\)", "", line).split(", ") for line in block.splitlines()]
    assert [tuple(line) for line in reversed(lines)] == list(FLOORS)


def test_every_room_with_files_is_described() -> None:
    rooms = [room for floor in FLOORS for room in floor if (ROOT / "coke" / room).is_dir()]
    assert sorted(re.findall(r"^\| `([\w/]+)` \|", PAGE, re.MULTILINE)) == sorted(rooms)
