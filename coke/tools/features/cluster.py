"""``coke cluster``: constrained k-means of features in files, whatever their number."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from coke.clustering.estimator import OnlineConstrainedKMeans
from coke.clustering.points import METRICS
from coke.clustering.sizes import SizeBounds, size_bounds
from coke.files.kind import kind_of_files
from coke.files.npy_rows import NpyRows
from coke.files.publish import claimed
from coke.tools.datasets.ingest_report import one_line
from coke.tools.features.feature_files import Features, open_features

FORMAT = "coke-clusters"
VERSION = 1
_FILES = frozenset(
    f"{name}.npy" for name in ("labels", "ids", "centers", "sizes", "duals")
) | frozenset(("labels.tsv", "sizes.html", "summary.json"))
CLUSTERS = kind_of_files(
    "clustering",
    marker="summary.json",
    says=FORMAT,
    files=_FILES,
)
_LABEL_BATCH = 1 << 16
#: Types whose numbers float32 holds exactly; others are copied as float64.
_NARROW = ("float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "bool")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How features are clustered; see :class:`coke.OnlineConstrainedKMeans`.

    Attributes:
        clusters: K.
        min_ratio: smallest size as a share of N / K; 0.4 when neither it nor ``min_size`` is given.
        min_size, max_size: in points.
        metric: ``"cosine"`` or ``"euclidean"``.
        passes: over the features, at most.
        batch_size: features compared with the centers at a time.
        restarts: starts, of which the best is kept.
        seed: decides starts and order.
    """

    clusters: int = 100
    min_ratio: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    metric: str = "cosine"
    passes: int = 10
    batch_size: int = 1024
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "passes", "batch_size", "restarts"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} is {getattr(self, name)}; it must be at least 1")
        if self.min_ratio is not None and self.min_size is not None:
            raise ValueError(
                f"--min-ratio {self.min_ratio} and --min-size {self.min_size} both give the "
                "smallest size; leave one out"
            )
        if self.min_ratio is not None and not 0 <= self.min_ratio <= 1:
            raise ValueError(
                f"--min-ratio is {self.min_ratio}; it is a share of rows / clusters, from 0 to 1"
            )
        for name in ("min_size", "max_size", "seed"):
            if (getattr(self, name) or 0) < 0:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} is {getattr(self, name)}; it cannot be negative")
        if self.metric not in METRICS:
            raise ValueError(f"--metric is {self.metric!r}; choose one of {', '.join(METRICS)}")

    def bounds(self, rows: int) -> SizeBounds:
        """Sizes that clusters of so many rows must have.

        Raises:
            ValueError: there are no such clusters.
        """
        if self.clusters > rows:
            raise ValueError(
                f"--clusters is {self.clusters:,}, but there are only {rows:,} rows; use fewer "
                "clusters than rows"
            )
        return size_bounds(
            rows,
            self.clusters,
            min_ratio=self.ratio,
            min_size=self.min_size,
            max_size=self.max_size,
        )

    @property
    def ratio(self) -> float:
        return 0.4 if self.min_ratio is None else self.min_ratio


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """What a clustering came to; ``summary.json`` holds the same.

    Attributes:
        rows, width, clusters: N, D, K.
        min_size, max_size: the bounds, in points; no ``max_size`` is None.
        smallest, largest: sizes of clusters.
        objective: sum of similarities to the own center; ``bound``: what no assignment that keeps
            the sizes can exceed at these centers; ``optimality_gap``: how far the first is from the
            second, as a share.
        inertia: sum of squared distances (euclidean), or of 1 - cosine, to the own center.
        passes: that were made over the rows.
        seconds: from the first row read to the last file written.
    """

    rows: int
    width: int
    clusters: int
    min_size: int
    max_size: int | None
    smallest: int
    largest: int
    objective: float
    bound: float
    optimality_gap: float
    inertia: float
    passes: int
    seconds: float


def cluster(
    features: str | Path,
    out: str | Path,
    settings: ClusterSettings | None = None,
    *,
    key: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ClusterReport:
    """Clusters features and writes a folder of labels, centers, sizes and a summary.

    ``.npy`` files are read where they are. Others are copied to a temporary file first, in $TMPDIR
    (4 N D bytes, 8 N D of numbers that float32 cannot hold): rows are read in random order, many
    times.

    Args:
        features: files or a folder, see :func:`coke.tools.features.feature_files.open_features`.
        out: the new folder; it appears when it is complete, or not at all.
        settings: the defaults when None.
        key: the member, tensor or column of the files.
        overwrite: replace a clustering (and nothing else) in ``out``.

    Raises:
        ValueError: features that cannot be read or clustered, settings that do not fit them, or an
            ``out`` that is taken.
    """
    console = console or Console()
    settings = settings or ClusterSettings()
    out = Path(out)
    found = open_features(features, key)
    bounds = settings.bounds(found.rows)
    if out.resolve() == found.path.resolve():
        raise ValueError(f"OUT is {out}, where the features are; choose another folder")
    with claimed(out, overwrite=overwrite, restart=True, kind=CLUSTERS, console=console) as claim:
        started = time.monotonic()
        if found.has_ids:
            found.check_ids()
        fitted = _fitted(found, settings, console)
        found.check_unchanged()
        with claim.workspace("clusters", "") as work:
            _write_labels(work.dataset, found, fitted.labels_, settings.clusters)
            np.save(work.dataset / "centers.npy", fitted.cluster_centers_)
            np.save(work.dataset / "sizes.npy", fitted.counts_)
            np.save(work.dataset / "duals.npy", fitted.duals_)
            report = ClusterReport(
                rows=found.rows,
                width=found.width,
                clusters=settings.clusters,
                min_size=int(bounds.lower),
                max_size=None if math.isinf(bounds.upper) else int(bounds.upper),
                smallest=int(fitted.counts_.min()),
                largest=int(fitted.counts_.max()),
                objective=float(fitted.objective_),
                bound=float(fitted.bound_),
                optimality_gap=float(fitted.optimality_gap_),
                inertia=float(fitted.inertia_),
                passes=int(fitted.n_iter_),
                seconds=round(time.monotonic() - started, 3),
            )
            about = {
                "format": FORMAT,
                "version": VERSION,
                **asdict(report),
                "input": {
                    "path": str(found.path.resolve()),
                    "files": len(found.files),
                    "part": found.files[0].what or None,
                    "dtype": found.dtype,
                    "ids": found.has_ids,
                    "keys": found.has_keys,
                },
                "settings": {**asdict(settings), "min_ratio": _used_ratio(settings)},
            }
            (work.dataset / "summary.json").write_text(
                json.dumps(about, indent=1) + "\n", encoding="utf-8"
            )
            work.publish({})
    _show(report, settings, found, out, console)
    return report


def _used_ratio(settings: ClusterSettings) -> float | None:
    return settings.ratio if settings.min_size is None else None


def _fitted(
    features: Features, settings: ClusterSettings, console: Console
) -> OnlineConstrainedKMeans:
    estimator = OnlineConstrainedKMeans(
        settings.clusters,
        min_ratio=settings.ratio,
        min_size=settings.min_size,
        max_size=settings.max_size,
        metric=settings.metric,
        n_init=settings.restarts,
        max_iter=settings.passes,
        batch_size=settings.batch_size,
        random_state=settings.seed,
        verbose=not console.quiet,
    )
    directed = settings.metric == "cosine"
    mapped = features.mapped
    if mapped is None:
        _check_room(features)
        return estimator.fit(_with_progress(features, directed, "reading", console))
    # Consumed without a name: one that stays would keep a second map of the file open.
    deque(_with_progress(features, directed, "checking", console), maxlen=0)
    return estimator.fit(mapped)


def _with_progress(
    features: Features, directed: bool, verb: str, console: Console
) -> Iterator[NDArray[Any]]:
    with Progress(console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task(f"{verb} {features.path.name}", total=features.rows)
        for batch_BD in features.batches(directed=directed):
            yield batch_BD
            progress.advance(task, len(batch_BD))


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


def _write_labels(
    folder: Path, features: Features, labels_N: NDArray[np.int64], n_clusters: int
) -> None:
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


def _show(
    report: ClusterReport,
    settings: ClusterSettings,
    features: Features,
    out: Path,
    console: Console,
) -> None:
    table = Table(title=escape(f"{out}"), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    asked = f"at least {report.min_size:,}"
    if report.max_size is not None:
        asked += f", at most {report.max_size:,}"
    for name, value in (
        ("features", f"{escape(features.describe())}"),
        ("rows x width", f"{report.rows:,} x {report.width:,} {features.dtype}"),
        ("clusters", f"{report.clusters:,} ({settings.metric})"),
        ("sizes", f"{report.smallest:,} to {report.largest:,}; asked for: {asked}"),
        ("optimality gap", f"{100 * report.optimality_gap:.3f} % at most, at these centers"),
        ("passes", f"{report.passes} in {report.seconds:.1f} s"),
        ("labels", _labels_in_words(features)),
    ):
        table.add_row(name, value)
    console.print(table, highlight=False)


def _labels_in_words(features: Features) -> str:
    known = [name for name, has in (("id", features.has_ids), ("key", features.has_keys)) if has]
    if not known:
        return "labels.npy, by row"
    return f"labels.npy, by row; labels.tsv, by {' and '.join(known)}"
