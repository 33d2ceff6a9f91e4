"""Data sets in a bucket or behind a web server: their files by name, through fsspec, with retry."""

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
BACK_OFF_S = 0.5  # before the second attempt; doubled before each one after it
LONGEST_BACK_OFF_S = 30.0
_WITHOUT_A_SECOND_CHANCE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class WrongContent(ValueError):  # noqa: N818 (it is a ValueError that knows a size)
    """A remote file that is not what the manifest says it is.

    Attributes:
        size: bytes that were found.
        again: the same was found before, so it is the file and not the transfer.
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
        attempts: how often a request is tried in all.
        back_off_s: seconds before the second attempt; doubled, up to half a minute, before each
            one after it, and varied by half so that ranks do not come back all at once.

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
        """A small file.

        Raises:
            FileNotFoundError: there is none of this name.
            ValueError: it cannot be read, after all attempts.
        """
        data = self._retrying(name, lambda: self._fs.cat_file(f"{self._root}/{name}"), None)
        assert isinstance(data, bytes)
        return data

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
            name: of the file, in the remote folder.
            path: where to.
            sha256: what the bytes must hash to; ``size``: and how many they must be.
            stop: ends the waiting between two attempts, and the attempts.

        Raises:
            FileNotFoundError: there is none of this name.
            WrongContent: the remote file has another size or hash.
            ValueError: it cannot be read, after all attempts.
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
            what = (
                f"SHA-256 {digest[:12]}..., the manifest says {sha256[:12]}..."
                if size in (None, got)
                else f"{got} bytes, the manifest says {size}"
            )
            again = (got, digest) in found
            found.add((got, digest))
            raise WrongContent(f"{self.url}/{name} has {what}", size=got, again=again)

        self._retrying(name, attempt, stop)

    def names(self) -> list[str]:
        """All files below the folder, by their names in it; none where there is no folder.

        Raises:
            ValueError: it cannot be listed, after all attempts.
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
        """Names of the folders right in this one, where the storage can list them."""
        try:
            found = self._fs.ls(self._root, detail=True)
        except Exception:  # a server that lists nothing answers in many ways
            return []
        names = (str(entry["name"]).rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted({name.rpartition("/")[2] for name in names})

    @property
    def is_web(self) -> bool:
        """Whether this is a web server: it only reads, and need not list its files."""
        return self.url.startswith(("http://", "https://"))

    def upload(self, name: str, path: Path) -> None:
        """Writes a local file to the folder; whole or not at all where the store can do that.

        Raises:
            ValueError: it cannot be written, after all attempts.
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
        """Removes a file; that it is gone already is no error.

        Raises:
            ValueError: it cannot be removed, after all attempts.
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
            except Exception as error:  # each file system raises errors of its own
                if isinstance(error, OSError) and error.errno in _WITHOUT_A_SECOND_CHANCE:
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
    """fsspec's progress callback that ends a transfer of more bytes than there should be."""
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
    """Whether the next attempt would end the same."""
    if isinstance(error, WrongContent):
        return error.again
    return isinstance(error, PermissionError) or getattr(error, "status", None) in (400, 401, 403)
