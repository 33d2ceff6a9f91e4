"""Syncing, locking and hashing files stand in one module each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "coke"


def users_of(module: str, name: str | None, package: Path) -> list[str]:
    """Files that use ``module.name``, or ``module`` at all where ``name`` is None."""
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used = name is None and any(alias.name == module for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == module:
                used = name is None or any(alias.name == name for alias in node.names)
            else:
                used = isinstance(node, ast.Attribute) and node.attr == name
            if used:
                found.append(path.relative_to(package).as_posix())
                break
    return found


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("fcntl", None, "files/lock.py"),
        ("os", "fsync", "files/durable.py"),
        ("hashlib", "file_digest", "files/hashing.py"),
    ],
)
def test_one_module_has_it(module: str, name: str | None, home: str) -> None:
    assert users_of(module, name, PACKAGE) == [home]


def test_every_way_of_using_it_is_seen(tmp_path: Path) -> None:
    for number, text in enumerate(
        (
            "import os\nos.fsync(3)",
            "def f():\n    from os import fsync",
            "import os as o; o.fsync(3)",
        )
    ):
        (tmp_path / f"{number}.py").write_text(text, encoding="utf-8")
    (tmp_path / "other.py").write_text(
        "import os\nfrom os import path\nos.replace(1, 2)", encoding="utf-8"
    )
    assert users_of("os", "fsync", tmp_path) == ["0.py", "1.py", "2.py"]
    (tmp_path / "none.py").write_text("os = 3", encoding="utf-8")
    assert users_of("os", None, tmp_path) == ["0.py", "1.py", "2.py", "other.py"]
