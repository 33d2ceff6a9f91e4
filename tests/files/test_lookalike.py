"""What lies under the name of a tar, parquet file or image after a download that failed."""

from __future__ import annotations

import pytest

from coke.files.lookalike import lookalike


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer: run git"),
        (b"PK\x03\x04\x14\x00", "a zip archive: unpack it first"),
        (b"\n<!DOCTYPE HTML PUBLIC>", "a web page: download the file itself"),
        (b"\xef\xbb\xbf  <html lang=en>", "a web page: download the file itself"),
    ],
)
def test_known_kinds(head: bytes, what: str) -> None:
    found = lookalike(head)
    assert found is not None and found.startswith(what)


@pytest.mark.parametrize("head", [b"", b"\xff\xd8\xff\xe0", b"version 1", bytes(64)])
def test_others(head: bytes) -> None:
    assert lookalike(head) is None
