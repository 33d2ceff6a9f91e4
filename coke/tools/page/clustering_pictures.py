"""The clusters of a clustering of features, which ``coke cluster`` wrote; and its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from coke.clustering.sizes import SizeBounds
from coke.model.precision import resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.features.cluster import FORMAT
from coke.tools.features.embed import chosen_split
from coke.tools.features.feature_files import Features, open_features
from coke.tools.page.content import Section, Table
from coke.tools.page.embedding import ABOUT, read_embedding
from coke.tools.page.feature_stream import FileFeatures
from coke.tools.page.pictures import Images, Pictures, PictureSettings, pictures_of
from coke.tools.page.survey import Head


@dataclass(frozen=True, kw_only=True)
class ClusteredFeatures:
    """What a clustering is looked at with.

    Attributes:
        features: those that were clustered.
        key: member, tensor or column of their files.
        data: the data set of their images; None for a page without pictures.
        split: of a folder of splits; train if None.
    """

    features: Path
    key: str | None = None
    data: str | None = None
    split: str | None = None
    device: str = "auto"


def is_clustering(path: Path) -> bool:
    """Whether a folder is what ``coke cluster`` writes."""
    try:
        return bool(read_summary(path)["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_summary(path: Path) -> dict[str, Any]:
    """The ``summary.json`` of a clustering."""
    found: dict[str, Any] = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return found


def clustering_pictures(
    path: Path, of: ClusteredFeatures, settings: PictureSettings, console: Console
) -> Pictures:
    """The sections of a clustering that show its points.

    Raises:
        ValueError: features that were not clustered there, or a data set that is not theirs.
    """
    about, device = read_summary(path), resolve_device(of.device)
    features = open_features(of.features, of.key)
    labels_N = _labels(path, features, about)
    images = _images(features, of)
    centers_KD = torch.from_numpy(np.load(path / "centers.npy")).to(device)
    metric, largest = about["settings"]["metric"], about["max_size"]
    upper = math.inf if largest is None else largest
    head = Head(name=f"K={len(centers_KD):,}", centers=centers_KD, labels=labels_N)
    return pictures_of(
        FileFeatures(features, project=None, directed=metric == "cosine", device=device),
        [head],
        images,
        metric=metric,
        bounds=[SizeBounds(lower=about["min_size"], upper=upper)],
        note="Borderline are those with the smallest lead over the next center.",
        of="features",
        settings=settings,
        console=console,
    )


def summary_section(about: dict[str, Any]) -> Section:
    """What ``coke cluster`` wrote about its result."""
    sizes = f"{about['smallest']:,} to {about['largest']:,}"
    asked = f"at least {about['min_size']:,}"
    if about["max_size"] is not None:
        asked += f", at most {about['max_size']:,}"
    rows = [
        ("features", about["input"]["path"]),
        ("rows x width", f"{about['rows']:,} x {about['width']:,} {about['input']['dtype']}"),
        ("clusters", f"{about['clusters']:,}"),
        ("sizes", f"{sizes}; asked for: {asked}"),
        ("optimality gap", f"{100 * about['optimality_gap']:.3f} % at most, at these centers"),
        ("inertia", f"{about['inertia']:,.6g}"),
        ("passes", f"{about['passes']} in {about['seconds']:.1f} s"),
    ]
    rows += [(name, str(value)) for name, value in about["settings"].items() if value is not None]
    return Section(
        title="Summary", tables=[Table(header=("", "this clustering"), rows=rows, texts=2)]
    )


def _labels(path: Path, features: Features, about: dict[str, Any]) -> NDArray[np.int64]:
    """The cluster of each row.

    Raises:
        ValueError: the features are not those that were clustered, as far as shapes and ids tell.
    """
    for name, found in (("rows", features.rows), ("width", features.width)):
        if found != about[name]:
            raise ValueError(
                f"{features.path} has {name} {found:,}, and {path} is a clustering of {name} "
                f"{about[name]:,}: give the features that were clustered, which were at "
                f"{about['input']['path']}"
            )
    labels_N: NDArray[np.int64] = np.load(path / "labels.npy").astype(np.int64)
    ids = path / "ids.npy"
    if features.has_ids and ids.is_file():
        stored = np.load(ids, mmap_mode="r")
        start = 0
        for ids_B in features.ids():
            if not np.array_equal(ids_B, stored[start : start + len(ids_B)]):
                raise ValueError(
                    f"{features.path} has other ids than {path}, or another order: give the "
                    "features that were clustered"
                )
            start += len(ids_B)
    return labels_N


def _images(features: Features, of: ClusteredFeatures) -> Images:
    ids_N = None
    if features.has_ids:
        ids_N = np.concatenate(list(features.ids()))
    index = None
    if of.data is not None:
        index = ImageIndex(chosen_split(of.data, of.split))
        ids_N = _ids_in(index, features, ids_N)
    classes_N, names = _classes(features, index, ids_N)
    return Images(
        index=index,
        row_ids=ids_N,
        classes=classes_N,
        class_names=names,
        keys=_keys(features, index, ids_N),
    )


def _ids_in(
    index: ImageIndex, features: Features, ids_N: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The id of each row in a data set.

    Raises:
        ValueError: the data set has no image of some row.
    """
    if (features.path / ABOUT).is_file():
        read_embedding(features.path).check_data(index)
    live = index.live_ids
    if ids_N is None:
        if features.rows != index.n_live:
            raise ValueError(
                f"{features.path} has {features.rows:,} rows without ids, and {index.location} "
                f"{index.n_live:,} images: give features with ids, or leave out --data"
            )
        return np.arange(len(index), dtype=np.int64) if live is None else live
    known_N = (ids_N >= 0) & (ids_N < len(index))
    known_N[known_N] = index.rows["length"][ids_N[known_N]] > 0
    if not known_N.all():
        row = int(np.argmin(known_N))
        raise ValueError(
            f"row {row:,} of {features.path} has id {int(ids_N[row])}, and {index.location} has "
            "no such image: give the data set that the features are of"
        )
    return ids_N


def _classes(
    features: Features, index: ImageIndex | None, ids_N: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, Sequence[str]]:
    """Class of each row and names of classes: of the data set, or of ``classes.npy``."""
    beside = features.path / "classes.npy"
    if index is not None:
        assert ids_N is not None
        classes_N, names = index.labels[ids_N], index.manifest.classes
        return (classes_N if bool((classes_N >= 0).any()) else None), names
    if beside.is_file() and (features.path / ABOUT).is_file():
        classes_N = np.load(beside).astype(np.int64)
        return classes_N, list(read_embedding(features.path).classes)
    return None, []


def _keys(
    features: Features, index: ImageIndex | None, ids_N: NDArray[np.int64] | None
) -> Callable[[Sequence[int]], list[str]]:
    def keys(rows: Sequence[int]) -> list[str]:
        if index is not None:
            assert ids_N is not None
            return [index.keys[i] for i in ids_N[list(rows)].tolist()]
        if features.has_keys:
            return _some(features, rows)
        if ids_N is not None:
            return [f"id {i}" for i in ids_N[list(rows)].tolist()]
        return [f"row {row}" for row in rows]

    return keys


def _some(features: Features, rows: Sequence[int]) -> list[str]:
    """Keys of some rows, ascending, without keeping those of all."""
    found: list[str] = []
    start = 0
    batches = features.keys()
    for batch in batches:
        stop = start + len(batch)
        while len(found) < len(rows) and rows[len(found)] < stop:
            found.append(str(batch[rows[len(found)] - start]))
        start = stop
    return found
