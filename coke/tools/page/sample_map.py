"""A map of a sample: features in two dimensions, by PCA and, with the extra ``umap``, by UMAP."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coke.tools.page.content import Section, Widget
from coke.tools.page.survey import Survey

POINTS = 1500  # images on the map; a browser draws so many without delay
_FEWEST = 20  # points below which UMAP has no neighbourhoods to keep
UMAP_NEIGHBOURS, UMAP_MIN_DISTANCE = 15, 0.1  # the library's defaults


def umap_is_possible() -> bool:
    """Whether the package for UMAP is installed."""
    return find_spec("umap") is not None


def check_umap() -> None:
    """Raises ValueError, with the remedy, if the package for UMAP is not installed."""
    if not umap_is_possible():
        raise ValueError("--umap needs umap-learn: `pip install 'coke[umap]'`, or use --no-umap")


def map_section(
    found: Survey,
    classes_N: NDArray[np.int64] | None,
    *,
    with_umap: bool,
    of: str,
    seed: int = 0,
) -> Section:
    """Points that a reader colours by class or by cluster; an image shows where the mouse is.

    Args:
        classes_N: class of each row, -1 for none; None without classes.
        with_umap: also lay the points out by UMAP.
        of: what the features are, in words.
    """
    rows_M = found.sample_rows
    features_MD = _comparable(found.sample, found.metric)
    places_M2, shares = pca(features_MD)
    layouts = [{"name": "PCA", "xy": _rounded(places_M2)}]
    lines = [f"PCA: its two axes hold {shares[0]:.0%} and {shares[1]:.0%} of the variance."]
    if with_umap and len(rows_M) >= _FEWEST:
        layouts.append({"name": "UMAP", "xy": _rounded(umap(features_MD, seed=seed))})
        lines.append(
            f"UMAP: keeps neighbourhoods of {UMAP_NEIGHBOURS} points; distances between groups "
            "and sizes of groups mean little."
        )
    colours: list[dict[str, Any]] = []
    if classes_N is not None:
        colours.append({"name": "class", "of": classes_N[rows_M].tolist()})
    for head in found.heads:
        colours.append({"name": f"cluster, {head.name}", "of": head.labels[rows_M].tolist()})
    note = (
        f"{len(rows_M):,} of {len(found.heads[0].labels):,} images, drawn at random, by their "
        f"{of}. Point at one to see it; drag to look closer, double-click to go back."
    )
    data = {"rows": rows_M.tolist(), "layouts": layouts, "colours": colours}
    return Section(
        title="Map", note=note, lines=lines, widgets=[Widget(kind="sample_map", data=data)]
    )


def pca(features_MD: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Places (M, 2) on the two main axes, and the share of the variance on each.

    An axis points to where its farthest point is, so that the same features give the same map.
    """
    centered_MD = features_MD - features_MD.mean(axis=0)
    m, d = centered_MD.shape
    product = centered_MD @ centered_MD.T if m <= d else centered_MD.T @ centered_MD
    values, vectors = np.linalg.eigh(product)
    values = np.maximum(values[::-1], 0)  # the largest first
    top = vectors[:, ::-1][:, :2]
    places_M2 = top * np.sqrt(values[: top.shape[1]]) if m <= d else centered_MD @ top
    places_M2 = np.pad(places_M2, ((0, 0), (0, 2 - places_M2.shape[1])))
    farthest_2 = np.abs(places_M2).argmax(axis=0)
    signs_2 = np.where(places_M2[farthest_2, [0, 1]] < 0, -1.0, 1.0)
    whole = values.sum()
    shares = np.pad(values[:2], (0, max(0, 2 - len(values)))) / (whole if whole > 0 else 1.0)
    return places_M2 * signs_2, (float(shares[0]), float(shares[1]))


def umap(features_MD: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """Places (M, 2) by UMAP with Euclidean distances; the same for the same seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one core, which a seed needs; of deprecations in numba
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=min(UMAP_NEIGHBOURS, len(features_MD) - 1),
            min_dist=UMAP_MIN_DISTANCE,
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(reducer.fit_transform(features_MD), dtype=np.float64)


def _comparable(sample_MD: Tensor, metric: str) -> NDArray[np.float64]:
    """Unit vectors under cosine: their Euclidean distances order as cosines do."""
    features_MD = F.normalize(sample_MD.double(), dim=1) if metric == "cosine" else sample_MD
    found: NDArray[np.float64] = features_MD.double().cpu().numpy()
    return found


def _rounded(places_M2: NDArray[np.float64]) -> list[Sequence[float]]:
    """Places in thousandths of the map's width, to keep the page small."""
    scale = float(np.abs(places_M2 - places_M2.mean(axis=0)).max()) or 1.0
    found: list[Sequence[float]] = np.round(places_M2 / scale, 4).tolist()
    return found
