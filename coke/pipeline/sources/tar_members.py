"""Images inside tars: headers list them, and they are read by offset without unpacking."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from coke.files.lookalike import HEAD, lookalike
from coke.pipeline.sources import storage

_BLOCK = 1025  # the byte before a header, the header, and small contents such as a label
_PADDING = 1 << 20  # bytes read at once of what follows the end of an archive
_CONNECTIONS = 8

R = TypeVar("R")


class Member(NamedTuple):
    """A file inside a tar; ``offset`` is of its first byte, in the whole file."""

    name: str
    offset: int
    size: int


class Span(NamedTuple):
    """A tar that is a part of a file, or all of it."""

    path: str
    start: int = 0
    size: int | None = None


class OpenTar:
    """A tar whose headers are read one after the other, seeking over everything else.

    Args:
        file: what the tar lies in; unbuffered, so that little besides headers is read.
        span: where in it; the path is for messages.
    """

    def __init__(self, file: io.RawIOBase, span: Span) -> None:
        size = file.seek(0, os.SEEK_END) - span.start if span.size is None else span.size
        self.path = span.path
        self._span = span
        self._part = _Part(file, span.start, size)

    def __iter__(self) -> Iterator[Member]:
        """Regular files, in order; of tars that were joined (``cat a.tar b.tar``), of each.

        Raises:
            ValueError: the tar is damaged, something follows it that is no tar, or it holds an
                image in a form that is no plain file.
        """
        name = ""
        start: int | None = 0
        while start is not None:
            self._part.seek(start)
            try:
                with self._open() as tar:
                    while info := tar.next():
                        tar.members = []  # type: ignore[attr-defined] # a tar can hold millions
                        name = info.name.removeprefix("./").lstrip("/")
                        if info.isreg() and not info.issparse():
                            yield Member(name, self._span.start + info.offset_data, info.size)
                        elif not info.isdir():
                            raise ValueError(f"{self._where()} {_no_file(name, info)}")
                    stop = tar.offset
            except tarfile.TarError as error:
                if not name and (kind := lookalike(self._head())):
                    raise ValueError(f"{self._where()} is no tar, but {kind}") from error
                where = f"after {name}" if name else "at its start"
                raise self._damage(f"{error}, {where}") from error
            # tarfile takes a header that it cannot understand for the end of the archive
            self._part.seek(stop)
            if self._part.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise self._damage(f"no header where one should be, after {name}")
            start = self._next_archive(stop)

    def _open(self) -> tarfile.TarFile:
        # Names are keys, and keys are UTF-8 whatever the locale.
        return tarfile.TarFile(
            fileobj=cast(IO[bytes], self._part), encoding="utf-8", errors="surrogateescape"
        )

    def _next_archive(self, end: int) -> int | None:
        """The position at which another archive begins behind the end of one; None if none does."""
        position = end
        self._part.seek(position)
        while data := self._part.read(_PADDING):
            if rest := data.lstrip(b"\0"):
                found = position + len(data) - len(rest)
                return found - found % tarfile.BLOCKSIZE
            position += len(data)
        return None

    def contents(self, member: Member) -> bytes:
        """All bytes of a small member; costs no further read right after its header."""
        self._part.seek(member.offset - self._span.start)
        return self._part.read(member.size)

    def _head(self) -> bytes:
        self._part.seek(0)
        return self._part.read(HEAD)

    def _where(self) -> str:
        path, start, size = self._span
        return path if size is None else f"the tar at byte {start} of {path}"

    def _damage(self, what: str) -> ValueError:
        choice = ", or choose another source" if self._span.size is None else ""
        return ValueError(
            f"{self._where()} is truncated or damaged: {what}; download it again{choice}"
        )


def _no_file(name: str, info: tarfile.TarInfo) -> str:
    """The reason why a member is no plain file, and the remedy."""
    if info.issym() or info.islnk():
        remedy = "pack the tar again with --hard-dereference --dereference"
        return f"holds {name}, a link to {info.linkname}; {remedy}"
    if info.issparse():
        return f"holds {name} as a sparse file; pack the tar again without --sparse"
    return f"holds {name}, which is no regular file; pack the tar again without it"


class _Part:
    """A part of a file as a file for ``tarfile``; small reads share one larger one."""

    def __init__(self, file: io.RawIOBase, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._position = 0
        self._block, self._block_start = b"", 0

    def seek(self, position: int) -> None:
        self._position = position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        start = self._position
        stop = min(start + count, self._size)
        if start >= stop:
            return b""
        if start < self._block_start or stop > self._block_start + len(self._block):
            self._file.seek(self._start + start)
            wanted = min(max(count, _BLOCK), self._size - start)
            self._block, self._block_start = self._file.read(wanted) or b"", start
        data = self._block[start - self._block_start : stop - self._block_start]
        self._position = start + len(data)
        return data


def scan(span: Span, collect: Callable[[OpenTar], R]) -> R:
    """The result of ``collect`` for a tar.

    Raises:
        ValueError: the tar cannot be read or is damaged.
    """
    with storage.opened(span.path) as file:
        return collect(OpenTar(file, span))


def scan_all(spans: Iterable[Span], collect: Callable[[OpenTar], R]) -> Iterator[R]:
    """:func:`scan` of many, in order; several at a time where each read waits for a server."""
    spans = list(spans)
    if not any(storage.is_url(span.path) for span in spans):
        yield from (scan(span, collect) for span in spans)
        return
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        yield from pool.map(lambda span: scan(span, collect), spans)


@dataclass(frozen=True)
class TarMembers:
    """Images that are members of tars.

    Attributes:
        paths: the files, as paths or URLs.
        names: one per image, as in its tar.
        files: (n,) int32, indices into ``paths``.
        offsets: (n,) int64, of the first byte in the file.
        sizes: (n,) int64, in bytes.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    files: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @staticmethod
    def of(found: Sequence[tuple[str, Sequence[Member]]]) -> TarMembers:
        """From the path and the members of each file."""
        paths = tuple(path for path, _ in found)
        members = [member for _, inside in found for member in inside]
        return TarMembers(
            paths,
            tuple(member.name for member in members),
            np.repeat(np.arange(len(paths), dtype=np.int32), [len(inside) for _, inside in found]),
            np.array([member.offset for member in members], dtype=np.int64),
            np.array([member.size for member in members], dtype=np.int64),
        )

    def read(self, i: int) -> bytes:
        return storage.read_range(self.path(i), int(self.offsets[i]), int(self.sizes[i]))

    def describe(self, i: int) -> str:
        return f"{self.names[i]} in {self.path(i)} at offset {self.offsets[i]}"

    def path(self, i: int) -> str:
        return self.paths[int(self.files[i])]

    def take(self, positions: Sequence[int]) -> TarMembers:
        chosen = np.asarray(positions, dtype=np.int64)
        used, files = np.unique(self.files[chosen], return_inverse=True)
        return TarMembers(
            tuple(self.paths[i] for i in used),
            tuple(self.names[i] for i in positions),
            files.astype(np.int32),
            self.offsets[chosen],
            self.sizes[chosen],
        )
