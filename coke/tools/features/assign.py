"""``coke assign``: rows that a clustering has not seen, given to its clusters."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.clustering.distances import own_losses
from coke.clustering.fitted_centers import FittedCenters
from coke.clustering.fixed_centers import assigned_in_sizes
from coke.clustering.point_array import PointArray
from coke.files.kind import kind_of_files
from coke.files.npy_rows import NpyRows
from coke.files.publish import claimed
from coke.tools.console.tables import print_table
from coke.tools.features.feature_files import Features, open_features
from coke.tools.features.label_files import labels_in_words, write_labels
from coke.tools.features.reading import as_points, input_record, with_progress
from coke.tools.features.stored_clustering import StoredClustering, read_clustering

FORMAT = "coke-assignment"
VERSION = 1
ASSIGNMENT = kind_of_files(
    "assignment",
    marker="summary.json",
    says=FORMAT,
    files=frozenset(
        ("labels.npy", "ids.npy", "distances.npy", "sizes.npy", "labels.tsv", "summary.json")
    ),
)
_BATCH = 1024  # rows that are compared with the centers at a time


@dataclass(frozen=True, kw_only=True)
class AssignReport:
    """An assignment in numbers; ``summary.json`` holds the same.

    Attributes:
        rows, width, clusters: N, D and K.
        smallest, largest: sizes of the smallest and the largest cluster, in rows.
        min_size, max_size: with ``keep_sizes``, the sizes that were kept; else None. ``max_size``
            is None also without a limit.
        optimality_gap: with ``keep_sizes``, how far the assignment may be from the best one that
            keeps the sizes, see :class:`coke.OnlineConstrainedKMeans`; else None.
        mean_distance: of the rows to their centers: Euclidean, or 1 minus the cosine.
        seconds: time from the first row read to the last file written.
    """

    rows: int
    width: int
    clusters: int
    smallest: int
    largest: int
    min_size: int | None
    max_size: int | None
    optimality_gap: float | None
    mean_distance: float
    seconds: float


def assign(
    clustering: str | Path,
    features: str | Path,
    out: str | Path,
    *,
    keep_sizes: bool = False,
    key: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> AssignReport:
    """Gives each row the cluster of the nearest center, and writes labels and distances.

    Rows are read once, in batches; labels, 8 bytes a row, are all that grows with them. With
    ``keep_sizes`` no cluster gets fewer or more of the new rows than the clustering's bounds allow,
    as shares of rows / clusters; then files that are no ``.npy`` are first copied to $TMPDIR, as
    ``coke cluster`` does.

    Args:
        clustering: a folder made by ``coke cluster``.
        features: files or a folder, see :func:`coke.tools.features.feature_files.open_features`.
        out: the new folder; it appears when it is complete, or not at all.
        keep_sizes: hold the clustering's sizes.
        key: the member, tensor or column of the files.
        overwrite: replace an assignment, and nothing else, that is in ``out``.

    Raises:
        ValueError: ``clustering`` is none, the features cannot be read, are not finite or of
            another width, or ``out`` is taken or cannot be written.
    """
    console, out = console or Console(), Path(out)
    stored, found = read_clustering(clustering), open_features(features, key)
    clusters, width = stored.centers.shape
    if found.width != width:
        raise ValueError(
            f"{found.path} has rows of width {found.width}, the centers of {stored.path} have "
            f"{width}: give features of the same kind"
        )
    for what, place in (("features", found.path), ("clustering", stored.path)):
        if out.resolve() == place.resolve():
            raise ValueError(f"OUT is {out}, the folder of the {what}; choose another one")
    bounds = stored.bounds(found.rows) if keep_sizes else None
    with claimed(out, overwrite=overwrite, restart=True, kind=ASSIGNMENT, console=console) as claim:
        started = time.monotonic()
        if found.has_ids:
            found.check_ids()
        labels_N, gap = None, None
        if bounds is not None:
            kept = assigned_in_sizes(
                as_points(found, directed=stored.metric == "cosine", console=console),
                stored.centers,
                bounds,
                metric=stored.metric,
                batch_size=_BATCH,
                seed=0,
            )
            labels_N, gap = kept.labels, kept.optimality_gap
        with claim.workspace("assignment", "") as work:
            labels_N, total = _write_distances(work.dataset, stored, found, labels_N, console)
            found.check_unchanged()
            write_labels(work.dataset, found, labels_N, clusters)
            sizes_K = np.bincount(labels_N, minlength=clusters)
            np.save(work.dataset / "sizes.npy", sizes_K)
            no_limit = bounds is None or math.isinf(bounds.upper)
            report = AssignReport(
                rows=found.rows,
                width=width,
                clusters=clusters,
                smallest=int(sizes_K.min()),
                largest=int(sizes_K.max()),
                min_size=None if bounds is None else int(bounds.lower),
                max_size=None if bounds is None or no_limit else int(bounds.upper),
                optimality_gap=gap,
                mean_distance=total / found.rows,
                seconds=round(time.monotonic() - started, 3),
            )
            about = {
                "format": FORMAT,
                "version": VERSION,
                **asdict(report),
                "clustering": str(stored.path.resolve()),
                "metric": stored.metric,
                "keep_sizes": keep_sizes,
                "input": input_record(found),
            }
            text = json.dumps(about, indent=1) + "\n"
            (work.dataset / "summary.json").write_text(text, encoding="utf-8")
            work.publish({})
    _show(report, stored, found, out, console)
    return report


def _write_distances(
    folder: Path,
    stored: StoredClustering,
    features: Features,
    labels_N: NDArray[np.int64] | None,
    console: Console,
) -> tuple[NDArray[np.int64], float]:
    """Writes ``distances.npy`` (N,) float32.

    Args:
        labels_N: clusters of the rows; those of the nearest centers if None.

    Returns: the labels, and the sum of the distances.
    """
    centers_KD = torch.from_numpy(stored.centers)
    nearest = FittedCenters(
        centers=stored.centers,
        duals=np.zeros(len(centers_KD)),
        metric=stored.metric,
        batch_size=_BATCH,
    )
    given = labels_N is not None
    if labels_N is None:
        labels_N = np.empty(features.rows, dtype=np.int64)
    start, total = 0, 0.0
    directed = stored.metric == "cosine"
    with NpyRows(folder / "distances.npy", (features.rows,), np.float32) as file:
        for batch_BD in with_progress(features, directed, "assigning", console):
            rows = slice(start, start + len(batch_BD))
            if not given:
                labels_N[rows] = nearest.labels(PointArray(array=batch_BD))
            own_BD = centers_KD[torch.from_numpy(labels_N[rows])]
            # A copy: rows of a memory map cannot be written, and torch warns of that.
            losses_B = own_losses(torch.from_numpy(batch_BD.copy()), own_BD, stored.metric)
            distances_B = losses_B if directed else losses_B.sqrt()
            file.append(distances_B.numpy().astype(np.float32))
            total += float(distances_B.sum())
            start = rows.stop
    return labels_N, total


def _show(
    report: AssignReport, stored: StoredClustering, features: Features, out: Path, console: Console
) -> None:
    table = Table(title=escape(f"{out}"), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    asked = ""
    if report.min_size is not None:
        asked = f"; asked for: at least {report.min_size:,}"
        if report.max_size is not None:
            asked += f", at most {report.max_size:,}"
    lines: list[tuple[str, Any]] = [
        ("features", escape(features.describe())),
        ("rows x width", f"{report.rows:,} x {report.width:,} {features.dtype}"),
        ("clusters", f"{report.clusters:,} ({stored.metric}) of {escape(str(stored.path))}"),
        ("sizes", f"{report.smallest:,} to {report.largest:,}{asked}"),
        ("mean distance", f"{report.mean_distance:.4g}"),
    ]
    if report.optimality_gap is not None:
        lines.append(("optimality gap", f"{100 * report.optimality_gap:.3f} % at most"))
    lines += [
        ("seconds", f"{report.seconds:.1f}"),
        ("labels", labels_in_words(features)),
    ]
    for name, value in lines:
        table.add_row(name, value)
    print_table(console, table, highlight=False)
