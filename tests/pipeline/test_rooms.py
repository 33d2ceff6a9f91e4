"""Rooms of the pipeline import only rooms above them in the list of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import coke.pipeline

PACKAGE = Path(coke.pipeline.__file__).parent
ROOMS = re.findall(r"^- ``(\w+)``", coke.pipeline.__doc__ or "", re.MULTILINE)


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a file imports anything from, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.split(".")[2] for n in names if n.startswith("coke.pipeline.")}
    return found


def test_the_list_is_complete() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.stem[0] != "_"}
    assert sorted(ROOMS) == sorted(there)


def test_imports_point_up_the_list() -> None:
    wrong = []
    for i, room in enumerate(ROOMS):
        for file in [*(PACKAGE / room).rglob("*.py"), *PACKAGE.glob(f"{room}.py")]:
            below = imported_rooms(file) & set(ROOMS[i + 1 :])
            wrong += [f"{file.relative_to(PACKAGE)} imports {other}" for other in sorted(below)]
    assert wrong == []
