"""Sizes in bytes, read and shown."""

from __future__ import annotations

import pytest

from coke.files.byte_size import parse_bytes, show_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GiB", 16 * 2**30),
        ("1.5 KiB", 1536),
        ("800MB", 800_000_000),
        ("2TB", 2 * 10**12),
        ("12B", 12),
        ("123456", 123456),
    ],
)
def test_parse(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["16GB of memory", "GiB", "-1GiB", "16gib", "1e9", ""])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size in bytes; write 16GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (12, "12 B"),
        (1536, "1.5 KiB"),
        (87.5 * 2**20, "87.5 MiB"),
        (1000 << 20, "1000 MiB"),
        (3 << 30, "3 GiB"),
        (1 << 42, "4 TiB"),
    ],
)
def test_show(size: float, text: str) -> None:
    assert show_bytes(size) == text
