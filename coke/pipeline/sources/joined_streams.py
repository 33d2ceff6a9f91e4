"""Compressed streams that were joined, read to the end of the file.

Python's own readers of bzip2 and xz end without a word where they do not understand what follows a
stream: padding with a further stream behind it, or a further stream that is damaged.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from typing import IO

_READ = 1 << 20  # bytes of the file at once

Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


class JoinedStreams:
    """A file of one or more streams, with zero bytes between or behind them.

    Args:
        file: the compressed file.
        new: makes the decompressor of a stream.
    """

    def __init__(self, file: IO[bytes], new: Callable[[], Decompressor]) -> None:
        self._file, self._new, self._stream = file, new, new()

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; none at the end of the file.

        Raises:
            EOFError, OSError, lzma.LZMAError: the file is cut or damaged, or something else
                follows.
        """
        while True:
            data = b""
            if self._stream.eof:
                data = self._next_stream()
                if not data:
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input:
                data = self._file.read(_READ)
                if not data:
                    raise EOFError("it ends in the middle")
            if block := self._stream.decompress(data, size):
                return block

    def _next_stream(self) -> bytes:
        """What has been read of the next stream; nothing where there is none."""
        data = self._stream.unused_data.lstrip(b"\0")
        while not data and (more := self._file.read(_READ)):
            data = more.lstrip(b"\0")
        return data
