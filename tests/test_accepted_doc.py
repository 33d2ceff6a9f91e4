"""docs/what-is-accepted.md: its tests exist, and the lines that it quotes are in the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "what-is-accepted.md"

_ROW = re.compile(r"^\| (?!given |---)(.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"\[`(\w+)`\]\(\.\./(tests/[\w/]+\.py)\)")
_SAID = re.compile(r"[a-z]: (`[^`]+`(?:, `[^`]+`)*)")  # after a colon stands what coke says
_SPAN = re.compile(r"`([^`]+)`")
_VERDICT = re.compile(r"taken|refused|rejected|set apart|the second is refused")


@cache
def names_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@cache
def said_by_coke() -> str:
    """All texts of the code but docstrings, a line each; a value within a text ends a line."""
    texts = []
    for path in sorted((ROOT / "coke").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and id(node) not in docstrings:
                texts.append(str(node.value))
    return "\n".join(texts)


def problems(row: tuple[str, str, str]) -> list[str]:
    """What is wrong with a row of the page."""
    given, becomes, held = row
    found = [] if _VERDICT.match(becomes) else [f"no verdict: {becomes}"]
    named = _TEST.findall(held)
    if not named or _TEST.sub("", held).strip(", "):
        found.append(f"{given} is held by {held or 'nothing'}")
    for name, file in named:
        if not (ROOT / file).is_file() or name not in names_in(ROOT / file):
            found.append(f"there is no {file}::{name}")
        elif not name.startswith("test_"):
            found.append(f"{name} is no test")
    for said in _SAID.findall(becomes):
        for line in _SPAN.findall(said):
            parts = [part for part in map(str.strip, line.split("…")) if part]
            found += [f"coke does not say {part!r}" for part in parts if part not in said_by_coke()]
    return found


ROWS: list[tuple[str, str, str]] = _ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_its_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == [
        "Sources", "Names", "Pixels", "Labels", "Places", "Training", "Weights",
        "Points", "Evaluations",
    ]  # fmt: skip
    assert len(ROWS) == len(lines) - 2 * len(sections) >= 60


def test_every_row_is_held_by_tests_that_exist_and_quotes_what_coke_says() -> None:
    assert [problem for row in ROWS for problem in problems(row)] == []


GOOD = "[`test_topk_accuracy_by_hand`](../tests/tools/evaluation/test_accuracy.py)"


@pytest.mark.parametrize(
    ("becomes", "held", "problem"),
    [
        ("taken: a class", GOOD, None),
        ("refused: `no images in …`", GOOD, None),
        ("refused: `no pictures in …`", GOOD, "coke does not say 'no pictures in'"),
        ("rejected: `empty file`, `empty vase`", GOOD, "coke does not say 'empty vase'"),
        ("perhaps", GOOD, "no verdict: perhaps"),
        ("taken", "", "x is held by nothing"),
        ("taken", f"{GOOD} and luck", f"x is held by {GOOD} and luck"),
        ("taken", GOOD.replace("by_hand", "by_luck"), "there is no tests/tools/evaluation/test_ac"),
        ("taken", GOOD.replace("accuracy.py", "luck.py"), "there is no tests/tools/evaluation/te"),
        ("taken", "[`problems`](../tests/test_accepted_doc.py)", "problems is no test"),
    ],
)
def test_what_is_wrong_is_named(becomes: str, held: str, problem: str | None) -> None:
    found = problems(("x", becomes, held))
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1 and problem in found[0]
