"""A folder that ``coke cluster`` wrote, read back: centers, metric, and the sizes it keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.clustering.points import METRICS
from coke.clustering.sizes import SizeBounds, size_bounds
from coke.tools.features.cluster import FORMAT, VERSION


@dataclass(frozen=True, kw_only=True)
class StoredClustering:
    """A clustering of N rows into K clusters.

    Attributes:
        path: its folder.
        centers: (K, D) float64.
        metric: ``"cosine"`` or ``"euclidean"``.
        min_ratio: smallest size as a share of N / K.
        max_ratio: largest size as a share of N / K; None if there was no limit.
    """

    path: Path
    centers: NDArray[np.float64]
    metric: str
    min_ratio: float
    max_ratio: float | None

    def bounds(self, rows: int) -> SizeBounds:
        """The sizes of so many other rows: the same shares of rows / K, rounded down to whole."""
        return size_bounds(
            rows,
            len(self.centers),
            min_ratio=self.min_ratio,
            max_ratio=self.max_ratio,
            min_size=None,
            max_size=None,
        )


def read_clustering(folder: str | Path) -> StoredClustering:
    """Reads summary and centers.

    Raises:
        ValueError: the folder is no clustering, of another version, or damaged.
    """
    path = Path(folder)
    summary = path / "summary.json"
    if not summary.is_file():
        raise ValueError(
            f"{path} is no clustering: {summary} is missing; make one with "
            f"`coke cluster FEATURES {path}`"
        )
    try:
        about = json.loads(summary.read_text(encoding="utf-8"))
        found = (about["format"], about["version"])
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{summary} says format {found[0]!r} version {found[1]!r}; `coke assign` reads "
                f"{FORMAT!r} version {VERSION}"
            )
        metric, shape = about["settings"]["metric"], (about["clusters"], about["width"])
        min_ratio, max_ratio = _ratios(about)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{summary} is damaged ({error!r}); cluster again") from error
    if metric not in METRICS:
        raise ValueError(
            f"{summary} says metric {metric!r}; `coke assign` knows {', '.join(METRICS)}"
        )
    return StoredClustering(
        path=path,
        centers=_centers(path / "centers.npy", shape),
        metric=metric,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
    )


def _ratios(about: dict[str, Any]) -> tuple[float, float | None]:
    """Sizes that were given in rows, too, as shares of rows / K."""
    settings, mean = about["settings"], about["rows"] / about["clusters"]
    lower, upper = settings["min_ratio"], settings["max_ratio"]
    if settings["min_size"] is not None:
        lower = settings["min_size"] / mean
    if settings["max_size"] is not None:
        upper = settings["max_size"] / mean
    return float(lower), None if upper is None else float(upper)


def _centers(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        centers = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}); cluster again") from error
    if centers.shape != shape or centers.dtype.kind != "f" or not np.isfinite(centers).all():
        raise ValueError(
            f"{path} holds {centers.shape} of {centers.dtype}, where the summary says {shape} of "
            "finite numbers; cluster again"
        )
    return np.asarray(centers, dtype=np.float64)
