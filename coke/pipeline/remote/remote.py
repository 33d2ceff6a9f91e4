"""Files of a data set in a bucket or on a web server, read and written by name through fsspec.

Requests that fail are tried again.
"""

from __future__ import annotations

import errno
import random
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from coke.files.hashing import file_sha256
from coke.files.home import expanded
from coke.pipeline.remote.filesystem import PACKAGES, filesystem_of

T = TypeVar("T")

ATTEMPTS = 8
BACK_OFF_S = 0.5  # seconds before the second attempt; doubled before each further attempt
LONGEST_BACK_OFF_S = 30.0  # seconds
_LOCAL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # another attempt fails the same
_REFUSALS = (400, 401, 403)  # HTTP statuses that another attempt would get again


class WrongContent(ValueError):  # noqa: N818 (named for the file, not for the failure)
    """A remote file has another size or hash than the manifest says.

    Attributes:
        size: number of bytes that arrived.
        again: an earlier attempt got the same bytes, so the file is wrong and not the transfer.
    """

    def __init__(self, message: str, *, size: int, again: bool) -> None:
        super().__init__(message)
        self.size = size
        self.again = again


def location(folder: str | Path) -> str | Path:
    """A folder as given: a path, or a URL without a slash at its end.

    Raises:
        ValueError: a URL that was made a Path, which loses one of its slashes; or ``~`` without a
            home folder.
    """
    text = str(folder)
    if isinstance(folder, str) and "://" in text:
        protocol, _, rest = text.partition("://")
        return expanded(rest) if protocol in ("file", "local") else text.rstrip("/")
    if re.match(rf"({'|'.join(PACKAGES)}):/", text):
        raise ValueError(f"{text} is a Path; give a URL as text, with both slashes")
    return expanded(folder)


class Remote:
    """The files of a remote folder.

    Args:
        url: ``s3://``, ``gs://``, ``hf://``, ``http(s)://`` or whatever else fsspec reads.
        attempts: number of attempts of a request, the first one included.
        back_off_s: seconds before the second attempt. They double before each further attempt,
            up to half a minute, and vary by half, so that ranks do not come back all at once.

    Raises:
        ValueError: an unknown protocol, or one whose package is not installed.
    """

    def __init__(
        self, url: str, *, attempts: int | None = None, back_off_s: float | None = None
    ) -> None:
        self.url = url
        self._attempts = ATTEMPTS if attempts is None else attempts
        self._back_off_s = BACK_OFF_S if back_off_s is None else back_off_s
        self._fs, root = filesystem_of(url)
        self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """All bytes of a small file.

        Raises:
            FileNotFoundError: there is no file of this name.
            ValueError: the file cannot be read, after all attempts.
        """
        data = self._retrying(name, lambda: self._fs.cat_file(f"{self._root}/{name}"), None)
        assert isinstance(data, bytes)
        return data

    def has(self, name: str) -> bool:
        """Whether there is a file of this name.

        A refusal counts as no: object stores refuse names that are not there to users who may not
        list them.

        Raises:
            ValueError: the storage gives no answer, after all attempts.
        """
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        except ValueError as error:
            if is_refusal(error.__cause__):
                return False
            raise
        return True

    def download(
        self,
        name: str,
        path: Path,
        *,
        sha256: str,
        size: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Writes a remote file to ``path``, which may exist and is overwritten in place.

        Args:
            name: the file's name in the remote folder.
            path: the local file.
            sha256: hash that the bytes must have, in hexadecimal digits.
            size: number of bytes that the file must have; any number when None.
            stop: ends the attempts and the waiting between them.

        Raises:
            FileNotFoundError: there is no file of this name.
            WrongContent: the remote file has another size or hash.
            ValueError: the file cannot be read, after all attempts.
            OSError: ``path`` cannot be written.
        """
        found: set[tuple[int, str]] = set()

        def attempt() -> None:
            progress = _limited_progress(size)
            try:
                self._fs.get_file(f"{self._root}/{name}", str(path), callback=progress)
            except Exception:
                if not progress.exceeded:
                    raise
            got = progress.most if progress.exceeded else path.stat().st_size
            digest = "" if progress.exceeded else file_sha256(path)
            if digest == sha256 and size in (None, got):
                return
            difference = (
                f"SHA-256 {digest[:12]}..., the manifest says {sha256[:12]}..."
                if size in (None, got)
                else f"{got} bytes, the manifest says {size}"
            )
            again = (got, digest) in found
            found.add((got, digest))
            raise WrongContent(f"{self.url}/{name} has {difference}", size=got, again=again)

        self._retrying(name, attempt, stop)

    def names(self) -> list[str]:
        """Names of all files below the folder, relative to it; empty where there is no folder.

        Raises:
            ValueError: the folder cannot be listed, after all attempts.
        """

        def attempt() -> list[str]:
            self._fs.invalidate_cache()
            try:
                return list(self._fs.find(self._root))
            except FileNotFoundError:
                return []

        found = self._retrying("", attempt, None, verb="listed")
        # A file system may name files with a slash or protocol in front that the root lacks.
        inside = f"{self._root.lstrip('/')}/"
        return sorted(path.partition(inside)[2] for path in found if inside in path)

    def folders(self) -> list[str]:
        """Names of the folders directly in this one; empty where the storage does not list them."""
        try:
            found = self._fs.ls(self._root, detail=True)
        except Exception:  # servers that list nothing answer in many ways
            return []
        names = (str(entry["name"]).rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted({name.rpartition("/")[2] for name in names})

    @property
    def is_web(self) -> bool:
        """Whether this is a web server: it only reads, and need not list its files."""
        return self.url.startswith(("http://", "https://"))

    def upload(self, name: str, path: Path) -> None:
        """Writes a local file to the folder.

        Object stores show the whole file or none; other file systems may show a part meanwhile.

        Raises:
            ValueError: the file cannot be written, after all attempts.
        """
        remote = f"{self._root}/{name}"

        def attempt() -> None:
            self._fs.put_file(str(path), remote)
            self._fs.invalidate_cache()
            got = self._fs.info(remote)["size"]
            if got != path.stat().st_size:
                raise OSError(f"{got} bytes arrived of {path.stat().st_size}")

        self._retrying(name, attempt, None, verb="written")

    def remove(self, name: str) -> None:
        """Removes a file. It is no error if the file is already gone.

        Raises:
            ValueError: the file cannot be removed, after all attempts.
        """

        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{name}")

        self._retrying(name, attempt, None, verb="removed")

    def check_writable(self) -> None:
        """Raises ValueError where the protocol only reads."""
        if self.is_web:
            raise ValueError(
                f"{self.url} cannot be written: {self.url.partition('://')[0]}:// only reads; give "
                "a folder, or s3://, gs:// or hf://"
            )

    def _retrying(
        self,
        name: str,
        attempt: Callable[[], T],
        stop: threading.Event | None,
        verb: str = "read",
    ) -> T:
        stop = stop or threading.Event()
        for number in range(1, self._attempts + 1):
            try:
                return attempt()
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self.url}/{name} is missing") from error
            except Exception as error:  # each file system of fsspec raises errors of its own
                if isinstance(error, OSError) and error.errno in _LOCAL_DISK_ERRORS:
                    raise
                failure = error
            if _is_final(failure):
                break
            delay = min(self._back_off_s * 2 ** (number - 1), LONGEST_BACK_OFF_S)
            if number < self._attempts and stop.wait(delay * random.uniform(0.5, 1.5)):
                break
        if isinstance(failure, WrongContent):
            raise failure
        raise ValueError(
            f"{self.url}/{name} cannot be {verb}, after {number} attempts: "
            f"{type(failure).__name__}: {failure}"
        ) from failure


def _limited_progress(size: int | None) -> Any:
    """A progress callback of fsspec that ends a transfer of more than ``size`` bytes."""
    from fsspec.callbacks import Callback

    class LimitedProgress(Callback):  # type: ignore[misc]
        most, exceeded = 0, False

        def call(self, *args: Any, **kwargs: Any) -> None:
            self.most = max(self.value, self.size or 0)
            self.exceeded = size is not None and self.most > size
            if self.exceeded:
                raise EOFError(f"more than {size} bytes")

    return LimitedProgress()


def _is_final(error: Exception) -> bool:
    """Whether the next attempt would fail in the same way."""
    if isinstance(error, WrongContent):
        return error.again
    return is_refusal(error)


def is_refusal(error: BaseException | None) -> bool:
    """Whether an error says that this user may not have the file."""
    return isinstance(error, PermissionError) or getattr(error, "status", None) in _REFUSALS
