"""The sections that show images: clusters, neighbours, the map; and the pictures they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from coke.clustering.sizes import SizeBounds
from coke.config.machine import DEFAULT_CACHE_GB
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.page.content import Section
from coke.tools.page.feature_stream import FeatureStream
from coke.tools.page.gallery import CARDS, gallery
from coke.tools.page.neighbours import QUERIES, neighbours_section
from coke.tools.page.sample_map import POINTS, check_umap, map_section, umap_is_possible
from coke.tools.page.survey import Head, survey
from coke.tools.page.thumbnails import make_thumbnails

_SHOWN_PX = 56  # side of a picture on the page, in CSS pixels


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """How much a page shows.

    Attributes:
        clusters: clusters with pictures, of all heads together.
        points: images on the map.
        umap: also lay out the map by UMAP; None for where the package is installed.
        seed: decides which images are drawn.
    """

    clusters: int = CARDS
    points: int = POINTS
    umap: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.umap:
            check_umap()


@dataclass(frozen=True, kw_only=True)
class Images:
    """What the rows of features are.

    Attributes:
        index: the data set; None if there are only features.
        row_ids: (N,), its id of each row; None where row r is id r.
        classes: (N,), class of each row, -1 for none; None without classes.
        class_names: by class.
        keys: gives names of some rows.
    """

    index: ImageIndex | None
    row_ids: NDArray[np.int64] | None
    classes: NDArray[np.int64] | None
    class_names: Sequence[str]
    keys: Callable[[Sequence[int]], list[str]]

    def ids(self, rows: Sequence[int]) -> list[int]:
        """Ids of rows."""
        return list(rows) if self.row_ids is None else self.row_ids[list(rows)].tolist()


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Sections, the pictures that they need (:attr:`coke.tools.page.content.Page.images`), and
    what was shown, in words.
    """

    sections: list[Section]
    images: Mapping[str, Any]
    summary: str


def pictures_of(
    stream: FeatureStream,
    heads: list[Head],
    images: Images,
    *,
    metric: str,
    bounds: Sequence[SizeBounds],
    note: str,
    of: str,
    settings: PictureSettings,
    cache_gb: float = DEFAULT_CACHE_GB,
    console: Console,
) -> Pictures:
    """Looks at all features once, and at the images that are shown.

    Args:
        bounds: sizes that the clusters of each head had to keep.
        note: where the assignment comes from, in words.
        of: what plain features are, in words.
        cache_gb: gigabytes that containers of a remote data set may take.

    Raises:
        ValueError: features or images cannot be read.
    """
    rng = np.random.default_rng(settings.seed)
    queries_Q = _drawn(rng, stream.rows, QUERIES)
    sample_M = _drawn(rng, stream.rows, settings.points)
    with TemporaryDirectory(prefix="coke-report-") as scratch:
        found = survey(
            stream,
            heads,
            metric=metric,
            queries_Q=queries_Q,
            sample_M=sample_M,
            scratch=Path(scratch),
            console=console,
        )
        shown = gallery(
            found,
            images.classes,
            bounds,
            note=note,
            cards=settings.clusters,
            seed=settings.seed,
        )
    with_umap = umap_is_possible() if settings.umap is None else settings.umap
    sections = [
        shown.section,
        neighbours_section(found.nearest, images.classes, metric, of),
        map_section(found, images.classes, with_umap=with_umap, of=of, seed=settings.seed),
    ]
    rows = sorted({*shown.rows, *found.nearest.shown_rows(), *sample_M.tolist()})
    cards = sum(len(head["clusters"]) for head in shown.section.widgets[0].data["heads"])
    return Pictures(
        sections=sections,
        images=_images(rows, images, cache_gb, console),
        summary=f"{cards:,} of {sum(head.n_clusters for head in found.heads):,} clusters, "
        f"{len(sample_M):,} of {stream.rows:,} images on the map",
    )


def _images(
    rows: list[int], images: Images, cache_gb: float, console: Console
) -> Mapping[str, Any]:
    """Picture, key and class of rows, as ``templates/images.js`` reads them."""
    pictures: dict[int, str] = {}
    kind = ""
    ids = images.ids(rows)
    if images.index is not None:
        made = make_thumbnails(images.index, ids, cache_gb=cache_gb, console=console)
        pictures, kind = made.of, made.kind
    classes = [-1] * len(rows) if images.classes is None else images.classes[rows].tolist()
    used = sorted({label for label in classes if label >= 0})
    return {
        "kind": kind,
        "shown": _SHOWN_PX,
        "classes": list(images.class_names) if used else [],
        "of": {
            str(row): [pictures.get(image_id), key, label]
            for row, image_id, key, label in zip(rows, ids, images.keys(rows), classes, strict=True)
        },
    }


def _drawn(rng: np.random.Generator, rows: int, count: int) -> NDArray[np.int64]:
    return np.sort(rng.choice(rows, min(count, rows), replace=False)).astype(np.int64)
