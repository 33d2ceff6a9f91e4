"""The gallery of clusters: of each some nearest, borderline and random images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.clustering.sizes import SizeBounds
from coke.tools.page.cluster_stats import Chosen, ClusterStats, choose, shares, stats_of
from coke.tools.page.clusters import sizes_chart
from coke.tools.page.content import Section, Table, Widget
from coke.tools.page.survey import Assigned, Survey, margins

NEAREST, BORDERLINE, RANDOM = 8, 4, 4  # images of a cluster
#: Clusters that are shown of all heads together: 16 thumbnails each, some 3 MB in all.
CARDS = 160
_PURITY = (
    "Purity is the share of images whose class is the most frequent one of their cluster. A single "
    "cluster would have the share of the largest class; more clusters have a higher purity by "
    "chance alone."
)
_CLASSES = 3  # most frequent classes of a cluster that are named


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The section, and the rows whose images it shows."""

    section: Section
    rows: list[int]


def gallery(
    found: Survey,
    classes_N: NDArray[np.int64] | None,
    bounds: Sequence[SizeBounds],
    *,
    note: str,
    cards: int = CARDS,
    seed: int = 0,
) -> Gallery:
    """A page of cards for each head, and a table and sizes of all clusters.

    Args:
        classes_N: class of each row, -1 for none; None without classes.
        bounds: sizes that each head had to keep.
        note: where the assignment comes from, in words.
        cards: clusters that are shown of all heads together.
    """
    stats = [stats_of(head, classes_N) for head in found.heads]
    counts = shares([len(of.filled) for of in stats], cards)
    rng = np.random.default_rng(seed)
    heads: list[dict[str, Any]] = []
    rows: list[int] = []
    for head, of, count in zip(found.heads, stats, counts, strict=True):
        chosen = choose(of, count, rng)
        entries = list(_cards(found, head, of, chosen, classes_N, rng))
        heads.append({"name": of.name, "note": shown_in_words(of, chosen), "clusters": entries})
        rows += [row for entry in entries for row in _rows_of(entry)]
    section = Section(
        title="Clusters",
        note=note,
        lines=[_PURITY] if any(of.classified for of in stats) else [],
        tables=[_table(found, stats, classes_N)],
        charts=[
            sizes_chart(
                of.sizes,
                bound,
                x_title="images in a cluster",
                title=f"Sizes of the clusters, {of.name}",
                half=True,
            )
            for of, bound in zip(stats, bounds, strict=True)
        ],
        widgets=[
            Widget(
                kind="gallery",
                data={"heads": heads, "metric": found.metric, "classes": classes_N is not None},
            )
        ],
    )
    return Gallery(section=section, rows=rows)


def shown_in_words(stats: ClusterStats, chosen: Chosen) -> str:
    """How many clusters there are, how many are shown, and which."""
    k, shown = len(stats.sizes), len(chosen.clusters)
    empty = k - len(stats.filled)
    if shown == k:
        return f"All {k:,} clusters are shown." if k > 1 else "The only cluster is shown."
    text = f"{shown:,} of {k:,} clusters are shown"
    if chosen.ends:
        text += (
            f": the {chosen.ends} first and last by {_listed(chosen.keys)}, the others at random"
        )
    text += "."
    return text + (f" {empty:,} are empty." if empty else "")


def _cards(
    found: Survey,
    head: Assigned,
    stats: ClusterStats,
    chosen: Chosen,
    classes_N: NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """What the page shows of each chosen cluster."""
    members_of = _members(head, chosen.clusters)
    border_of = _borderline(found, head, chosen.clusters)
    for cluster in chosen.clusters.tolist():
        rows = members_of[cluster]  # the nearest first
        drawn = rng.choice(rows, min(RANDOM, len(rows)), replace=False)
        yield {
            "number": cluster,
            "size": len(rows),
            "compactness": _closeness(stats.distance[cluster], found.metric),
            "purity": _or_none(stats.purities[cluster]),
            "classes": _top_classes(rows, classes_N),
            "nearest": [
                [row, _closeness(head.distances[row], found.metric)]
                for row in rows[:NEAREST].tolist()
            ],
            "borderline": border_of.get(cluster, []),
            "random": drawn.tolist(),
        }


def _members(head: Assigned, clusters: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Rows of each cluster, the nearest to the center first."""
    rows = np.flatnonzero(np.isin(head.labels, clusters))
    rows = rows[np.lexsort((rows, head.distances[rows], head.labels[rows]))]
    labels = head.labels[rows]
    starts, stops = (np.searchsorted(labels, clusters, side) for side in ("left", "right"))
    return {
        cluster: rows[start:stop]
        for cluster, start, stop in zip(
            clusters.tolist(), starts.tolist(), stops.tolist(), strict=True
        )
    }


def _borderline(
    found: Survey, head: Assigned, clusters: NDArray[np.int64]
) -> dict[int, list[list[Any]]]:
    """Row, margin and nearest other cluster of the rows with the smallest margins."""
    if head.n_clusters == 1:
        return {}
    rows, margins_R, others = margins(found, head, clusters)
    labels = head.labels[rows]
    order = np.lexsort((rows, margins_R, labels))
    best: dict[int, list[list[Any]]] = {cluster: [] for cluster in clusters.tolist()}
    starts = np.searchsorted(labels[order], clusters)
    for cluster, start in zip(clusters.tolist(), starts.tolist(), strict=True):
        for at in order[start : start + BORDERLINE].tolist():
            if labels[at] == cluster:
                margin = round(float(margins_R[at]), 4)
                best[cluster].append([int(rows[at]), margin, int(others[at])])
    return best


def _top_classes(rows: NDArray[np.int64], classes_N: NDArray[np.int64] | None) -> list[list[Any]]:
    """Class and share of the most frequent classes among rows with a class."""
    if classes_N is None:
        return []
    classes = classes_N[rows]
    found, counts = np.unique(classes[classes >= 0], return_counts=True)
    order = np.lexsort((found, -counts))[:_CLASSES]
    whole = int(counts.sum())
    return [[int(found[i]), round(int(counts[i]) / whole, 4)] for i in order.tolist()]


def _table(found: Survey, stats: list[ClusterStats], classes_N: NDArray[np.int64] | None) -> Table:
    """A row for each head, about all of its clusters."""
    measure = "mean cosine to center" if found.metric == "cosine" else "mean distance to center"
    header = ["head", "clusters", "empty", "smallest", "median", "largest", measure]
    pure = any(of.classified for of in stats)
    if pure:
        header += ["purity", "largest class"]
    rows = []
    for of, head in zip(stats, found.heads, strict=True):
        mean = float(np.nanmean(head.distances)) if len(of.filled) else None
        sizes = of.sizes
        cells = [of.name, f"{len(sizes):,}", f"{len(sizes) - len(of.filled):,}"]
        cells += [f"{int(sizes.min()):,}", f"{np.median(sizes):,.0f}", f"{int(sizes.max()):,}"]
        cells.append("" if mean is None else f"{_closeness(mean, found.metric):.3f}")
        if pure:
            cells += [_percent(of.purity), _percent(_largest_class(head, classes_N))]
        rows.append(cells)
    return Table(header=header, rows=rows)


def _largest_class(head: Assigned, classes_N: NDArray[np.int64] | None) -> float | None:
    """Purity of a clustering that puts everything into one cluster."""
    if classes_N is None:
        return None
    classes = classes_N[(head.labels >= 0) & (classes_N >= 0)]
    return float(np.bincount(classes).max() / len(classes)) if len(classes) else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _closeness(distance: float, metric: str) -> float | None:
    """The cosine, or the distance itself; None for NaN."""
    return _or_none(1 - distance if metric == "cosine" else distance)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _rows_of(entry: dict[str, Any]) -> Iterator[int]:
    yield from (row for row, _ in entry["nearest"])
    yield from (row for row, *_ in entry["borderline"])
    yield from entry["random"]
