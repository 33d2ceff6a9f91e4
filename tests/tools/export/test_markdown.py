"""Text that survives Markdown."""

from __future__ import annotations

import pytest

from coke.tools.export.markdown import code, code_block, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("net.pth", "`net.pth`"),
        ("<script>", "`<script>`"),  # nothing in a span of code is HTML or a mark
        ("a*b_c[d](e)", "`a*b_c[d](e)`"),
        ("a`b", "``a`b``"),  # a span ends at a run of exactly as many marks
        ("``", "``` `` ```"),
        ("two\nlines", r"`two\nlines`"),
        ("\u202egnp.exe", r"`\u202egnp.exe`"),  # would turn the letters after it around
        ("\udcff", r"`\udcff`"),  # a byte of a file name that is no UTF-8
        ("犬", "`犬`"),
        ("", "`  `"),
        (0.5, "`0.5`"),
    ],
)
def test_a_span_shows_the_text_as_it_is(text: object, shown: str) -> None:
    assert code(text) == shown
    shown.encode()


def test_a_block_is_longer_fenced_than_what_is_in_it() -> None:
    assert code_block("a = 1", "python") == "```python\na = 1\n```"
    assert code_block("a\n````\nb") == "`````\na\n````\nb\n`````"


def test_a_bar_ends_no_cell() -> None:
    assert table(("x", "n"), [("`a|b`", "1")], numbers=1).splitlines() == [
        "| x | n |",
        "| --- | ---: |",
        "| `a\\|b` | 1 |",
    ]
