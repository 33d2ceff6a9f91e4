"""Lists of images in text files: one key, file name or id a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from coke.files import durable
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.labelled_data import live_labels
from coke.tools.evaluation.subset import Ids, live_ids

_SHOWN = 5  # names in a message


def write_list(path: Path, index: ImageIndex, ids: Ids) -> None:
    """Writes the keys of images, one a line, ids ascending; :func:`read_list` reads them back.

    Raises:
        FileExistsError: the file is there.
        OSError: it cannot be written.
    """
    keys = index.keys
    durable.write_text(path, "".join(f"{keys[i]}\n" for i in ids.tolist()), exclusive=True)


def read_list(path: Path, index: ImageIndex) -> Ids:
    """The ids (M,) of a published list of labelled images, ascending.

    A line is an image's key; or its file name, with or without its ending, where no other image
    has it. So SimCLR's lists of ImageNet (``n01440764_10183.JPEG``) fit any layout of the images.
    If all lines are whole numbers and the first is no key, they are ids.

    Args:
        index: the labelled images that the list chooses from.

    Raises:
        ValueError: the file cannot be read, or a line names no image, several, one without a class
            label, or the same as a line before; or a class has no image in the list.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--ids {path} cannot be read as text ({error})") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"--ids {path} names no image; write one key, file name or id a line")
    find = _Finder([line for _, line in lines], index)
    usable = set(live_ids(index).tolist())
    first_at: dict[int, int] = {}
    for number, line in lines:
        where = f"--ids {path}, line {number}: {line!r}"
        found = find(line)
        if len(found) > 1:
            raise ValueError(
                f"{where} is the name of {len(found):,} images, such as "
                f"{' and '.join(repr(index.keys[i]) for i in found[:2])}; write their keys"
            )
        if not found:
            raise ValueError(
                f"{where} is no key, file name or id of {index.folder}, which has such as "
                f"{index.keys[0]!r}"
            )
        if found[0] not in usable:
            raise ValueError(f"{where} is an image that is gone or has no class label")
        if found[0] in first_at:
            raise ValueError(f"{where} names the same image as line {first_at[found[0]]}")
        first_at[found[0]] = number
    ids = np.array(sorted(first_at), dtype=np.int64)
    _check_classes(path, index, ids)
    return ids


class _Finder:
    """Finds the ids that a line may mean."""

    def __init__(self, lines: Sequence[str], index: ImageIndex) -> None:
        keys = index.keys
        self._keys = {key: i for i, key in enumerate(keys)}
        self._count = len(keys)
        self._are_ids = all(line.isdecimal() for line in lines) and lines[0] not in self._keys
        self._names: dict[str, list[int]] = {}
        if self._are_ids or all(line in self._keys for line in lines):
            return
        for i, key in enumerate(keys):
            name = PurePosixPath(key)
            for form in {name.name, name.stem}:
                self._names.setdefault(form, []).append(i)

    def __call__(self, line: str) -> list[int]:
        if self._are_ids:
            return [int(line)] if int(line) < self._count else []
        if line in self._keys:
            return [self._keys[line]]
        return self._names.get(line, [])


def _check_classes(path: Path, index: ImageIndex, ids: Ids) -> None:
    classes = index.manifest.classes
    empty = np.setdiff1d(np.unique(live_labels(index)), np.unique(index.labels[ids]))
    if len(empty):
        names = ", ".join(repr(classes[c]) for c in empty[:_SHOWN])
        more = f" and {len(empty) - _SHOWN:,} more" if len(empty) > _SHOWN else ""
        raise ValueError(
            f"--ids {path} has no image of {len(empty):,} of {len(classes):,} classes: "
            f"{names}{more}; list at least one of each"
        )
