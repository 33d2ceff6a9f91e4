"""A source: keys, labels, and images that can be read one at a time. All layouts give this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from coke.pipeline.images.formats import EXTENSIONS as EXTENSIONS
from coke.pipeline.sources import storage


class Images(Protocol):
    """The places of the bytes of candidates. The object is small and can be pickled."""

    def read(self, i: int) -> bytes: ...

    def describe(self, i: int) -> str: ...

    def path(self, i: int) -> str:
        """The file that holds the bytes: a path or URL."""
        ...

    def take(self, positions: Sequence[int]) -> Images: ...


class Other(NamedTuple):
    """A file of a source that is no candidate, or several of one name pattern."""

    key: str
    reason: str
    files: int = 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """Candidate images: what is there, before anyone has looked inside the files.

    Attributes:
        keys: one per candidate, each different, sorted by UTF-8 bytes.
        labels: one per candidate, an index into ``classes``; -1 = none.
        classes: names of the labels.
        images: where the bytes are.
        origin: the folder, tar, table, ... that they come from, a path or URL.
        others: files that are no candidates, and why.
        label_files: files, or members of tars, whose contents became labels.
    """

    keys: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    images: Images
    origin: str
    others: tuple[Other, ...] = ()
    label_files: tuple[Other, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def describe(self, i: int) -> str:
        """The place of candidate ``i``, for messages."""
        return self.images.describe(i)

    def read(self, i: int) -> bytes:
        """Bytes of the image file of candidate ``i``.

        Raises:
            ConnectionError: the storage did not answer; the image may be fine.
            OSError: the image cannot be read.
        """
        return self.images.read(i)

    def stamp(self, i: int) -> str:
        """Changes when the file that holds candidate ``i`` does, and costs no reading.

        Size and modification time; empty where the file is gone, or behind a URL.
        """
        return storage.stamp(self.images.path(i))

    def take(self, positions: Sequence[int]) -> Source:
        """Only these candidates: a small piece of work that travels to another process."""
        return replace(
            self,
            keys=tuple(self.keys[i] for i in positions),
            labels=tuple(self.labels[i] for i in positions),
            images=self.images.take(positions),
            others=(),
            label_files=(),
        )


@dataclass(frozen=True)
class Files:
    """Images that are files of their own.

    Attributes:
        root: the folder that ``names`` are relative to, a path or URL.
        names: one per image; may also be absolute paths or URLs.
    """

    root: str
    names: tuple[str, ...]

    def read(self, i: int) -> bytes:
        return storage.read_image(self.path(i))

    def describe(self, i: int) -> str:
        return self.path(i)

    def path(self, i: int) -> str:
        return storage.join(self.root, self.names[i])

    def take(self, positions: Sequence[int]) -> Files:
        return Files(self.root, tuple(self.names[i] for i in positions))


def is_image_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
