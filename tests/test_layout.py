"""Tests mirror the package folder by folder, and share code through `tests/support` alone."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "coke"
OWN = {"support", "golden", "benchmarks", "docs"}  # folders of `tests` that no part of coke has


def test_every_folder_of_tests_is_a_folder_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")} - {Path()}
    missing = [str(f) for f in folders if f.parts[0] not in OWN and not (PACKAGE / f).is_dir()]
    assert missing == []


def test_no_test_imports_a_test_module_or_a_conftest() -> None:
    found = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            parts = node.module.split(".")
            if parts[0] == "tests" and (parts[-1].startswith("test_") or parts[-1] == "conftest"):
                found.append(f"{path.relative_to(TESTS)}:{node.lineno} imports {node.module}")
    assert found == []
