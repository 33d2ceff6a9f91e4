"""Files that lie under another file's name: web pages, Git LFS pointers, archives.

A download that failed, or a clone without Git LFS, leaves them behind.
"""

from __future__ import annotations

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull"),
    (b"PK\x03\x04", "a zip archive: unpack it first, and give the folder"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first, and give the folder"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first, and give the folder"),
    (b"<!doctype html", "a web page: download the file itself"),
    (b"<html", "a web page: download the file itself"),
)
HEAD = 64  # bytes at the start of a file that say what it is


def lookalike(head: bytes) -> str | None:
    """What a file is that is not what its name says, and the remedy; None if that is not known.

    Args:
        head: the first :data:`HEAD` bytes of the file.
    """
    start = head[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((k for magic, k in _KINDS if start.lower().startswith(magic.lower())), None)
