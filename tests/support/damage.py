"""Damages a file, and finds what was reported about it."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def about(problems: list[str], *parts: str) -> list[str]:
    assert all("\n" not in problem for problem in problems)
    return [problem for problem in problems if all(part in problem for part in parts)]
