"""Reading the files of a source: from a local path, or from a URL through fsspec.

Local paths never touch fsspec; they are text decoded as UTF-8 (:mod:`coke.pipeline.sources.keys`).
A URL's reads are tried again with growing pauses, because one lost packet must not look like a
missing image.
"""

from __future__ import annotations

import errno
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from coke.files.home import expanded
from coke.pipeline.remote import web
from coke.pipeline.remote.filesystem import filesystem_of
from coke.pipeline.sources.keys import to_system

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRIES = 5  # attempts of a request, the first one included
_FIRST_PAUSE_S = 0.5  # seconds before the second attempt; doubled each time: 7.5 s in all
_BLOCK = 8 << 20  # bytes of a request; a smaller one would take nearly as long

T = TypeVar("T")


def is_url(path: str) -> bool:
    return _URL.match(path) is not None


def join(folder: str, name: str) -> str:
    """A path or URL below ``folder``; ``name`` alone when it is absolute or starts with ``~/``."""
    if is_url(name):
        return name
    if name.startswith("~/"):
        return str(expanded(name))
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def parent(path: str) -> str:
    return path.rpartition("/")[0] if is_url(path) else os.path.dirname(path) or "."


def base_name(path: str) -> str:
    """The last part of a path or URL, without the query that signed URLs carry."""
    return path.partition("?")[0].rpartition("/")[2] if is_url(path) else os.path.basename(path)


def is_file(path: str) -> bool:
    return _kind(path) == "file"


def is_folder(path: str) -> bool:
    return _kind(path) == "directory"


def _kind(path: str) -> str | None:
    if not is_url(path):
        path = to_system(path)
        return "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else None
    system, inside = filesystem_of(path)
    try:
        return str(patiently(path, lambda: system.info(inside))["type"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be looked at: {error.strerror}") from error


def read(path: str) -> bytes:
    """All bytes of a file.

    Raises:
        ConnectionError: a URL's storage did not answer.
        OSError: the file is missing or cannot be read.
    """
    if not is_url(path):
        with open(to_system(path), "rb", buffering=0) as file:
            return file.readall()
    system, inside = filesystem_of(path)
    return bytes(patiently(path, lambda: system.cat_file(inside)))


def read_image(path: str) -> bytes:
    """All bytes of an image file; of one on the web, within the limits of :mod:`remote.web`.

    Raises:
        RefusedError, NoAnswerError: a web server gives no image.
        ConnectionError: another URL's storage did not answer.
        OSError: the file is missing or cannot be read.
    """
    return web.fetch_image(path) if web.is_web(path) else read(path)


def read_range(path: str, offset: int, length: int) -> bytes:
    """``length`` bytes of a file from ``offset`` on: one read, or one request.

    Raises:
        ConnectionError: a URL's storage did not answer.
        OSError: the file is missing, ends too early, or cannot be read.
    """
    if length == 0:
        return b""
    if is_url(path):
        system, inside = filesystem_of(path)
        end = offset + length
        data = bytes(patiently(path, lambda: system.cat_file(inside, start=offset, end=end)))
        if len(data) > length:  # some HTTP servers answer with the whole file
            raise OSError(errno.EIO, "the server does not answer requests for parts of a file")
    else:
        with open(to_system(path), "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length)
    if len(data) < length:
        raise OSError(errno.EIO, f"the file ends before byte {offset + length}")
    return data


def stamp(path: str) -> str:
    """Size and modification time of a local file; empty where there is none, and for a URL."""
    try:
        status = None if is_url(path) else os.stat(to_system(path))
    except OSError:
        status = None
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns}"


def modified_ns(path: str) -> int:
    """Modification time of a local file in nanoseconds; 0 of any other."""
    try:
        return 0 if is_url(path) else os.stat(to_system(path)).st_mtime_ns
    except OSError:
        return 0


@contextmanager
def opened(path: str) -> Iterator[io.RawIOBase]:
    """A file opened for reading and seeking, without a buffer when it is local.

    Raises:
        ValueError: the file is missing, or cannot be read here or inside the ``with`` block.
    """
    try:
        with _RemoteFile(path) if is_url(path) else open(to_system(path), "rb", 0) as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


class _RemoteFile(io.RawIOBase):
    """A file behind a URL, read ahead in large blocks. Each request is tried several times."""

    def __init__(self, url: str) -> None:
        self._url = url
        system, inside = filesystem_of(url)
        self._file = patiently(
            url,
            lambda: system.open(inside, "rb", block_size=_BLOCK, cache_type="readahead"),
        )
        if not self._file.seekable():
            raise OSError(errno.ESPIPE, "the server does not say how long the file is")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()

        def fill() -> bytes:
            self._file.seek(start)
            return bytes(self._file.read(len(buffer)))

        data = patiently(self._url, fill)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def patiently(url: str, call: Callable[[], T]) -> T:
    """The result of a call to a storage; calls again after failures that may pass.

    Raises:
        FileNotFoundError: the storage has no such file.
        PermissionError: the storage refuses access.
        ConnectionError: every call has failed in another way.
    """
    for tries in range(1, _TRIES + 1):
        try:
            return call()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "No such file", url) from error
        except PermissionError as error:
            raise PermissionError(errno.EACCES, f"access denied ({error})", url) from error
        except ImportError:
            raise
        except Exception as error:  # each file system of fsspec raises errors of its own
            if "Credentials" in type(error).__name__:
                raise PermissionError(errno.EACCES, f"access denied ({error})", url) from error
            if tries == _TRIES:
                raise ConnectionError(
                    errno.ECONNABORTED, f"no answer after {tries} tries ({error!r})", url
                ) from error
        time.sleep(_FIRST_PAUSE_S * 2 ** (tries - 1))
    raise AssertionError("unreachable")
