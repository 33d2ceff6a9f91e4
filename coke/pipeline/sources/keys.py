"""Names of files as keys: the bytes of a name, read as UTF-8, whatever the locale.

Python decodes file names by the locale, so that one file would have one key under UTF-8 and
another under ISO-8859-1. Inside the sources every local path is therefore text that was decoded
as UTF-8 (bytes that are no UTF-8 become lone surrogates), and becomes bytes again where the
operating system is asked.
"""

from __future__ import annotations

import os
import sys


def key_bytes(key: str) -> bytes:
    """The bytes of a key or local path, as the disk has them. Keys are sorted by these."""
    return key.encode("utf-8", "surrogateescape")


def from_system(path: str) -> str:
    """A path that Python has decoded by the locale, decoded as UTF-8."""
    if sys.getfilesystemencoding() == "utf-8":
        return path
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def to_system(path: str) -> str:
    """A path decoded as UTF-8, as Python has it under this locale: what ``open`` takes."""
    if sys.getfilesystemencoding() == "utf-8":
        return path
    return os.fsdecode(key_bytes(path))


def is_utf8(key: str) -> bool:
    """Whether the bytes of a name are UTF-8, so that ``keys.txt`` can hold it."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def key_problem(key: str) -> str | None:
    """The reason why ``keys.txt`` cannot hold a key; None if it can."""
    if key.splitlines() != [key]:
        return "the file name holds a line break: rename it"
    return None if is_utf8(key) else "the file name is not valid UTF-8: rename it"
