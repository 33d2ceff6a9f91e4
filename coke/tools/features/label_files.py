"""Labels of a clustering in files: by row, and by the id and key of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.files.npy_rows import NpyRows
from coke.tools.datasets.ingest_report import one_line
from coke.tools.features.feature_files import Features

_LABEL_BATCH = 1 << 16  # labels that are written together


def write_labels(
    folder: Path, features: Features, labels_N: NDArray[np.int64], n_clusters: int
) -> None:
    """Writes ``labels.npy``, and ``ids.npy`` and ``labels.tsv`` if the rows have ids or keys.

    Args:
        folder: where the files go.
        features: the rows, for their ids and keys.
        labels_N: (N,) cluster of each row.
        n_clusters: number of clusters K; it decides on the type of ``labels.npy``.
    """
    n = len(labels_N)
    with NpyRows(folder / "labels.npy", (n,), np.min_scalar_type(n_clusters - 1)) as file:
        for start in range(0, n, _LABEL_BATCH):
            file.append(labels_N[start : start + _LABEL_BATCH])
    if features.has_ids:
        with ExitStack() as stack:
            ids_file: NpyRows | None = None
            for ids_B in features.ids():
                ids_file = ids_file or stack.enter_context(
                    NpyRows(folder / "ids.npy", (n,), ids_B.dtype)
                )
                ids_file.append(ids_B)
    if not features.has_ids and not features.has_keys:
        return
    columns: list[Iterator[Any]] = []
    names = []
    if features.has_ids:
        names.append("id")
        columns.append(chain.from_iterable(ids_B.tolist() for ids_B in features.ids()))
    if features.has_keys:
        names.append("key")
        columns.append(map(one_line, chain.from_iterable(features.keys())))
    columns.append(chain.from_iterable(_in_batches(labels_N)))
    with (folder / "labels.tsv").open("w", encoding="utf-8", newline="\n") as table:
        table.write("\t".join((*names, "cluster")) + "\n")
        table.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def _in_batches(labels_N: NDArray[np.int64]) -> Iterator[list[int]]:
    for start in range(0, len(labels_N), _LABEL_BATCH):
        yield labels_N[start : start + _LABEL_BATCH].tolist()


def labels_in_words(features: Features) -> str:
    """Where labels are, for a table on the screen."""
    known = [name for name, has in (("id", features.has_ids), ("key", features.has_keys)) if has]
    if not known:
        return "labels.npy, by row"
    return f"labels.npy, by row; labels.tsv, by {' and '.join(known)}"
