"""The files of a source: all files of a folder, or one file."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from coke.pipeline.remote import web
from coke.pipeline.sources import storage
from coke.pipeline.sources.keys import from_system, to_system
from coke.pipeline.sources.source import Other, is_image_name
from coke.pipeline.sources.walk import walk

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Listing:
    """Names of the files of a source, relative to its folder and sorted by UTF-8 bytes.

    Attributes:
        src: what the user gave, a path or URL.
        root: the folder: ``src``, or the one ``src`` lies in.
        names: the files that may be read; one when ``src`` is a file.
        alone: ``src`` is a file.
        apart: hidden and special files, which are never read.
        unpacked: path of the unpacked copy of a compressed file, by name.
    """

    src: str
    root: str
    names: tuple[str, ...]
    alone: bool
    apart: tuple[Other, ...] = ()
    unpacked: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The files whose names are those of images."""
        return tuple(name for name in self.names if is_image_name(name))

    def is_listed(self, name: str) -> bool:
        return name in self._known

    def path(self, name: str) -> str:
        """The path or URL at which to read a file."""
        return self.unpacked.get(name) or self.given(name)

    def given(self, name: str) -> str:
        """The path or URL of a file in the source; an unpacked copy may be read instead."""
        return self.src if self.alone and name == self.names[0] else storage.join(self.root, name)

    def ending(self, *extensions: str) -> list[str]:
        return [name for name in self.names if name.lower().endswith(extensions)]

    def has(self, name: str) -> bool:
        """Whether a file exists in the source, or beside ``src`` if ``src`` is a file."""
        if not self.alone or name in self._known:
            return name in self._known
        return storage.is_file(self.path(name))

    def has_folder(self, name: str) -> bool:
        if storage.is_url(self.root):  # buckets have no folders, only names
            return any(known.startswith(f"{name}/") for known in self.names)
        return os.path.isdir(to_system(self.path(name)))

    def below(self, folder: str) -> Listing:
        """The part in a folder, as if that had been given. Files set apart stay behind."""
        prefix = f"{folder}/"
        return Listing(
            src=storage.join(self.src, folder),
            root=storage.join(self.root, folder),
            names=tuple(n.removeprefix(prefix) for n in self.names if n.startswith(prefix)),
            alone=False,
        )

    def text(self, name: str) -> str:
        """Contents of a small text file: UTF-8, or UTF-16 with its byte order mark.

        Raises:
            ValueError: it cannot be read, or is no such text.
        """
        path = self.path(name)
        try:
            return decoded_text(storage.read(path))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text ({error}); convert it") from error


def decoded_text(data: bytes) -> str:
    """Text that is UTF-8, or UTF-16 with its byte order mark; a mark is no part of the text.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")


def list_source(src: str | Path) -> Listing:
    """Lists a source in one pass.

    Raises:
        ValueError: it is missing, or cannot be listed.
    """
    given = from_system(str(src))
    if storage.is_file(given):
        return Listing(given, storage.parent(given), (storage.base_name(given),), alone=True)
    if web.is_web(given):
        if why := web.why_unread(given):
            raise ValueError(f"source {given} cannot be read: {why}")
        raise ValueError(
            f"source {given} is no file that the server knows; over HTTP, a source is one file: "
            "a .tar, .parquet, .csv or .tsv"
        )
    if not storage.is_folder(given):
        raise ValueError(
            f"source {given} does not exist; give the folder or file that holds the images"
        )
    found = walk(given)
    return Listing(given, given, tuple(found.names), alone=False, apart=tuple(found.apart))
