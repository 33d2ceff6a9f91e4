"""Durable writes: a file is there whole, or as it was before; after a power cut too.

The bytes go to a draft beside the file. The draft is synced, takes the file's name, and the
folder is synced. Whatever ends the process leaves at most a draft, which the next write replaces.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def draft_of(
    path: Path, *, exclusive: bool = False, shared: bool = False, sync: bool = True
) -> Iterator[Path]:
    """The name of a draft to write; at the end of the ``with`` block it takes the name ``path``.

    An exception in the block removes the draft and leaves ``path`` as it was.

    Args:
        path: the file; its folder exists.
        exclusive: the file must not exist; otherwise it is replaced.
        shared: several processes may write the same file at a time, each with its own draft.
        sync: make the file survive a power cut. Without it, a power cut may leave the name
            without its bytes.

    Raises:
        FileExistsError: ``exclusive``, and the file exists.
        OSError: the disk refuses.
    """
    draft = path.with_name(draft_name(f"{path.name}.{uuid.uuid4().hex}" if shared else path.name))
    if exclusive and path.exists():  # before the work, rather than after it
        raise FileExistsError(f"{path} exists")
    try:
        yield draft
        if sync:
            flush(draft)
        if exclusive:
            _name_if_free(draft, path)
        else:
            draft.replace(path)
    finally:
        with suppress(OSError):  # an error of the write itself must not be hidden
            draft.unlink(missing_ok=True)
    if sync:
        flush(path.parent)


def draft_name(name: str) -> str:
    """The name of the draft of the file ``name``, in the same folder."""
    return f".{name}.partial"


def write_bytes(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    """Writes a file, see :func:`draft_of`."""
    with draft_of(path, exclusive=exclusive) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str, *, exclusive: bool = False) -> None:
    """Writes a text file in UTF-8 with line ends as given, see :func:`draft_of`."""
    write_bytes(path, text.encode(), exclusive=exclusive)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes ``value`` as JSON and a line end, see :func:`draft_of`."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def append_text(path: Path, text: str) -> None:
    """Adds text in UTF-8 to the end of a file and syncs it. A kill may leave a part of the text."""
    with path.open("ab") as file:
        file.write(text.encode())
    flush(path)


def rename(finished: Path, path: Path) -> None:
    """Gives a finished file the name ``path``, in place of what has it; for a power cut too.

    Both are on the same file system.
    """
    flush(finished)
    finished.replace(path)
    flush(path.parent)


def move_into(folder: Path, finished: Iterable[Path]) -> None:
    """Moves finished files into a folder under their own names, and syncs the folder once."""
    for path in finished:
        flush(path)
        path.replace(folder / path.name)
    flush(folder)


def flush(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems sync files, but no folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _name_if_free(draft: Path, path: Path) -> None:
    """A second name for the draft: unlike renaming, this fails where the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists") from None
    except OSError:  # a file system without links, such as FAT
        if path.exists():
            raise FileExistsError(f"{path} exists") from None
        draft.replace(path)
