"""Hashes of whole files."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.files.hashing import file_sha256


def test_the_published_examples(tmp_path: Path) -> None:
    """NIST, FIPS 180-4 examples: the empty message, "abc", and a million times "a"."""
    path = tmp_path / "file"
    for data, expected in (
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ):
        path.write_bytes(data)
        assert file_sha256(path) == expected
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")
