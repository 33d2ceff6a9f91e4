"""Compressed tars: recognised by their first bytes, whatever their name, and unpacked once.

Images in a tar are read by offset, which a compressed one does not have.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from coke.files.durable import draft_of
from coke.pipeline.sources import storage
from coke.pipeline.sources.joined_streams import JoinedStreams
from coke.pipeline.sources.keys import to_system
from coke.pipeline.sources.listing import Listing

TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz",
             ".tar.zst", ".tzst", ".tar.lz4", ".tar.z")  # fmt: skip
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
}
_BY_HAND = {"lz4": "lz4 -d", "compress": "uncompress", "zstd": "zstd -d"}
_BLOCK = 1 << 20
_CONNECTIONS = 8
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def without_tar_suffix(name: str) -> str:
    """The name of a tar without ``.tar``, ``.tar.gz`` and the like."""
    found = [suffix for suffix in TAR_NAMES if name.lower().endswith(suffix)]
    return name[: -max(map(len, found))] if found else name


def compression_of(path: str) -> str | None:
    """The compression of a file, by its first bytes; None if it is not compressed.

    Raises:
        ValueError: it cannot be read.
    """
    longest = max(map(len, _MAGIC))
    try:
        if path.startswith(("http://", "https://")):  # a server may answer with the whole file
            with storage.opened(path) as file:
                head = file.read(longest) or b""
        else:
            head = storage.read_range(path, 0, longest)
    except ConnectionError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except OSError:  # too short, or not there: whoever reads it as a tar says so
        return None
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def unpacked_tars(listing: Listing, names: Iterable[str], scratch: Path | None) -> Listing:
    """The same files; those that are compressed tars are read from unpacked copies.

    Args:
        listing: the source.
        names: its files that are, or hold, tars.
        scratch: the folder for the copies, which is made where one is needed.

    Raises:
        ValueError: a file is compressed and no tar, is damaged, or cannot be unpacked here.
    """
    copies: dict[str, str] = {}
    names = list(names)
    for name, kind in zip(names, _compressions(map(listing.given, names)), strict=True):
        path = listing.given(name)
        if kind:
            if scratch is None:
                raise ValueError(f"{path} is a tar compressed with {kind}; unpack it first")
            copy = scratch / f"{len(copies):05d}-{without_tar_suffix(name).rpartition('/')[2]}.tar"
            _unpack(path, kind, Path(to_system(str(copy))))
            copies[name] = str(copy)
    return replace(listing, unpacked=copies)


def _compressions(paths: Iterable[str]) -> list[str | None]:
    """:func:`compression_of` of many files; several at a time where each waits for a server."""
    paths = list(paths)
    if not any(map(storage.is_url, paths)):
        return list(map(compression_of, paths))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(compression_of, paths))


def _unpack(path: str, kind: str, copy: Path) -> None:
    stamp = storage.modified_ns(path)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(copy, sync=False) as draft:
            with draft.open("wb") as out:
                for block in _blocks(path, kind):
                    out.write(block)
            if stamp:  # so that a later run knows the copy, and the images in it, as the same
                os.utime(draft, ns=(stamp, stamp))
    except OSError as error:
        raise ValueError(
            f"{path} is compressed with {kind} and cannot be unpacked into {copy.parent}: "
            f"{error.strerror or error}; make room there, or unpack it elsewhere first"
        ) from error


def _blocks(path: str, kind: str) -> Iterator[bytes]:
    """The contents of a compressed tar, piece by piece."""
    with storage.opened(path) as raw, _reader(raw, path, kind) as file:
        is_first = True
        while block := _read(file, path, kind):
            if is_first and not _is_tar_header(block):
                raise ValueError(
                    f"{path} is compressed with {kind}, and what it holds is no tar; unpack it "
                    "first"
                )
            is_first = False
            yield block


def _read(file: IO[bytes], path: str, kind: str) -> bytes:
    try:
        return file.read(_BLOCK)
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is compressed with {kind} and damaged ({error}); download it again"
        ) from error


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


@contextmanager
def _reader(raw: io.RawIOBase, path: str, kind: str) -> Iterator[IO[bytes]]:
    buffered = io.BufferedReader(raw, _BLOCK)
    try:
        if kind == "gzip":
            with gzip.GzipFile(fileobj=buffered) as file:
                yield cast(IO[bytes], file)
        elif kind == "bzip2":
            yield cast(IO[bytes], JoinedStreams(cast(IO[bytes], buffered), bz2.BZ2Decompressor))
        elif kind == "xz":
            yield cast(IO[bytes], JoinedStreams(cast(IO[bytes], buffered), lzma.LZMADecompressor))
        elif kind == "zstd" and (opened := _zstd(buffered)) is not None:
            with opened:  # pyarrow complains of one that is left open
                yield opened
        else:
            hint = " (or pip install 'coke[parquet]')" if kind == "zstd" else ""
            raise ValueError(
                f"{path} is compressed with {kind}, which Python does not read here; unpack it "
                f"first: {_BY_HAND[kind]} {path}{hint}"
            )
    finally:
        if not buffered.closed:
            buffered.detach()


def _zstd(file: Any) -> IO[bytes] | None:
    """A reader of Zstandard: of the standard library (Python 3.14), or pyarrow's."""
    try:
        library: Any = importlib.import_module("compression.zstd")
        return cast(IO[bytes], library.ZstdFile(file))
    except ImportError:
        pass
    try:
        import pyarrow as pa
    except ImportError:
        return None
    return cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
