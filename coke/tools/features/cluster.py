"""``coke cluster``: constrained k-means of any number of features in files."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coke.clustering.estimator import OnlineConstrainedKMeans
from coke.files.kind import kind_of_files
from coke.files.publish import claimed
from coke.tools.console.tables import print_table
from coke.tools.features.cluster_settings import ClusterSettings
from coke.tools.features.feature_files import Features, open_features
from coke.tools.features.label_files import labels_in_words, write_labels
from coke.tools.features.reading import as_points, input_record

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


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """The result of a clustering in numbers; ``summary.json`` holds the same.

    Attributes:
        rows, width, clusters: N, D and K.
        min_size: smallest allowed size in rows.
        max_size: largest allowed size in rows; None if there is no limit.
        smallest, largest: sizes of the smallest and the largest cluster, in rows.
        objective, bound, optimality_gap, inertia: as of :class:`coke.OnlineConstrainedKMeans`.
        passes: passes that were made over the rows.
        seconds: time from the first row read to the last file written.
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

    ``.npy`` files are read where they are. Other files are first copied to a temporary file in
    $TMPDIR, since rows are read in random order and many times. The copy takes 4 N D bytes, or
    8 N D if float32 cannot hold the numbers.

    Args:
        features: files or a folder, see :func:`coke.tools.features.feature_files.open_features`.
        out: the new folder; it appears when it is complete, or not at all.
        settings: the defaults if None.
        key: the member, tensor or column of the files.
        overwrite: replace a clustering, and nothing else, that is in ``out``.

    Raises:
        ValueError: the features cannot be read or clustered, the settings do not fit them, or
            ``out`` is taken or cannot be written.
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
            write_labels(work.dataset, found, fitted.labels_, settings.clusters)
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
                "input": input_record(found),
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
        max_ratio=settings.max_ratio,
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
    return estimator.fit(as_points(features, directed=directed, console=console))


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
        ("labels", labels_in_words(features)),
    ):
        table.add_row(name, value)
    print_table(console, table, highlight=False)
