"""The page of a clustering: how many clusters have which size, and where the bounds are."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.clustering.sizes import SizeBounds
from coke.tools.page import charts
from coke.tools.page.content import Chart, Page, Section
from coke.tools.page.render import write_page

#: Name of the page in the folder that ``coke cluster`` writes.
SIZES_PAGE = "sizes.html"
_BINS = 48


def write_sizes_page(folder: Path) -> Path:
    """Writes the page of the clustering in ``folder`` beside its files; returns where it is.

    Raises:
        ValueError: the packages for pages are not installed.
    """
    about = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    largest = about["max_size"]
    bounds = SizeBounds(lower=about["min_size"], upper=math.inf if largest is None else largest)
    path = folder / SIZES_PAGE
    write_page(sizes_page(np.load(folder / "sizes.npy"), bounds), path)
    return path


def sizes_page(sizes_K: NDArray[np.int64], bounds: SizeBounds) -> Page:
    """A histogram of cluster sizes.

    Args:
        sizes_K: (K,) points of each cluster.
        bounds: the bounds that the sizes had to keep, drawn as dashed lines. A largest size far
            beyond all clusters is in words only: its line would squeeze the bars.
    """
    chart = sizes_chart(sizes_K, bounds, x_title="points in a cluster")
    title = f"Sizes of {len(sizes_K):,} clusters of {int(sizes_K.sum()):,} points"
    section = Section(title="Sizes", lines=_in_words(sizes_K, bounds), charts=[chart])
    return Page(title=title, sections=[section])


def sizes_chart(
    sizes_K: NDArray[np.int64],
    bounds: SizeBounds,
    *,
    x_title: str,
    title: str = "",
    half: bool = False,
) -> Chart:
    """A histogram of cluster sizes with lines at their bounds; see :func:`sizes_page`."""
    edges, counts = bins_of(sizes_K, bounds)
    return charts.histogram(
        edges.tolist(),
        counts.tolist(),
        x_title=x_title,
        y_title="clusters",
        marks=[(name, at) for name, at in _marks(bounds) if edges[0] <= at <= edges[-1]],
        title=title,
        half=half,
    )


def bins_of(
    sizes_K: NDArray[np.int64], bounds: SizeBounds
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges (E + 1,) of bins of whole sizes, and clusters (E,) in each.

    The bins reach over all sizes and over the bounds near them.
    """
    smallest, largest = int(sizes_K.min()), int(sizes_K.max())
    first = min(smallest, int(bounds.lower)) if bounds.lower > 0.5 * smallest else smallest
    last = largest
    if not math.isinf(bounds.upper) and bounds.upper <= 1.5 * largest:
        last = max(last, int(bounds.upper))
    margin = max(1, (last - first) // 25)  # so that no bar and no line is at the very edge
    first, last = max(0, first - margin), last + margin
    step = max(1, -(-(last - first + 1) // _BINS))
    if bounds.lower > first:  # a bin begins at the bound, so that no bar reaches across it
        first = int(bounds.lower) - step * -(-(int(bounds.lower) - first) // step)
    # A size s is the middle of [s - 0.5, s + 0.5): no size is on an edge.
    edges = first - 0.5 + step * np.arange(-(-(last - first + 1) // step) + 1, dtype=np.float64)
    counts, _ = np.histogram(sizes_K, edges)
    return edges, counts.astype(np.int64)


def _marks(bounds: SizeBounds) -> list[tuple[str, float]]:
    """Names and positions of the bounds' lines: outside of the bars of sizes that are allowed."""
    marks = []
    if bounds.lower > 0:
        marks.append((f"min {bounds.lower:,.0f}", bounds.lower - 0.5))
    if not math.isinf(bounds.upper):
        marks.append((f"max {bounds.upper:,.0f}", bounds.upper + 0.5))
    return marks


def _in_words(sizes_K: NDArray[np.int64], bounds: SizeBounds) -> list[str]:
    asked = [f"at least {bounds.lower:,.0f}"] if bounds.lower > 0 else []
    if not math.isinf(bounds.upper):
        asked.append(f"at most {bounds.upper:,.0f}")
    return [
        f"Smallest {int(sizes_K.min()):,}, median {float(np.median(sizes_K)):,.0f}, "
        f"largest {int(sizes_K.max()):,} points.",
        f"Asked for: {' and '.join(asked) or 'any size'}.",
    ]
