"""Features in files on their way to a clustering: checked, with progress, copied if they must."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from coke.clustering.stacked_rows import StackedRows
from coke.tools.features.feature_files import Features

#: Types whose numbers float32 holds exactly; others are copied as float64.
_NARROW = ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "bool")


def as_points(
    features: Features, *, directed: bool, console: Console
) -> NDArray[Any] | StackedRows | Iterator[NDArray[Any]]:
    """All rows, for reading in random order: memory maps of ``.npy`` files, whose values have been
    checked; of others batches, which the reader copies to a temporary file.

    Args:
        directed: refuse zero vectors, since they have no direction.

    Raises:
        ValueError: a value that cannot be used, or no room for the copy.
    """
    mapped = features.mapped
    if mapped is None:
        _check_room(features)
        return with_progress(features, directed, "reading", console)
    # The iterator has no name here, since a name would keep a second map of the file open.
    deque(with_progress(features, directed, "checking", console), maxlen=0)
    return mapped


def with_progress(
    features: Features, directed: bool, verb: str, console: Console
) -> Iterator[NDArray[Any]]:
    """The batches of :meth:`Features.batches`, with a bar that says ``verb``."""
    with Progress(console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task(f"{verb} {features.path.name}", total=features.rows)
        for batch_BD in features.batches(directed=directed):
            yield batch_BD
            progress.advance(task, len(batch_BD))


def input_record(features: Features) -> dict[str, Any]:
    """What a summary says of the features that it is of."""
    return {
        "path": str(features.path.resolve()),
        "files": len(features.files),
        "part": features.files[0].what or None,
        "dtype": features.dtype,
        "ids": features.has_ids,
        "keys": features.has_keys,
    }


def _check_room(features: Features) -> None:
    folder = tempfile.gettempdir()
    number = 4 if features.dtype in _NARROW else 8  # bytes
    needed, free = number * features.rows * features.width, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{features.path} is copied to a temporary file of {needed / 1e9:.1f} GB, {folder} has "
            f"{free / 1e9:.1f} GB free; name a larger folder in $TMPDIR, or give .npy files, "
            "which are not copied"
        )
