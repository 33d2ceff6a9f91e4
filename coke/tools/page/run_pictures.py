"""A run's clusters, neighbours and map: of its checkpoint, on a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from coke.clustering.label_store import LabelStore
from coke.clustering.sizes import SizeBounds, ratio_bounds
from coke.config.clustering import ClusteringConfig
from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.model.precision import resolve_device
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.labelled_data import live_labels
from coke.tools.features.embed import chosen_split, layer_network
from coke.tools.features.feature_files import open_features
from coke.tools.page.embedding import Embedding, read_embedding
from coke.tools.page.feature_stream import (
    FeatureStream,
    FileFeatures,
    ImageFeatures,
    projection_of,
)
from coke.tools.page.pictures import Images, Pictures, PictureSettings, pictures_of
from coke.tools.page.survey import Head
from coke.tools.runs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunImages:
    """Which images a run is looked at on, and how.

    Attributes:
        data: a data set, or a folder of splits.
        split: the split of a folder of splits; train if None.
        features: a folder of ``coke embed``, made of this run and data; None to embed now.
        epoch: of the checkpoint; the newest if None.
    """

    data: str
    split: str | None = None
    features: Path | None = None
    epoch: int | None = None
    batch_size: int = 256
    device: str = "auto"


def run_pictures(
    path: Path, of: RunImages, settings: PictureSettings, console: Console
) -> Pictures:
    """The sections of a run that show images.

    Raises:
        ValueError: no such data set, checkpoint or device; features of other weights or data.
    """
    run = RunFolder(path)
    config, device = run.config(), resolve_device(of.device)
    index = ImageIndex(chosen_split(of.data, of.split), cache_dir=config.machine.cache_dir or None)
    index = run.subset_of(index)
    if not index.n_live:
        raise ValueError(f"{index.folder} holds no image; there is nothing to show")
    embedding = None if of.features is None else read_embedding(of.features)
    state = run.state(of.epoch)
    model = build_model(config.model, config.seed)
    model.load_state_dict(state["model"])
    stream = _stream(index, config, model, of, embedding, state["epoch"], device)
    trained_on = run.data()
    own = trained_on["identity"] == index.identity
    heads = run_heads(state["clustering"], config.clustering, index if own else None, device)
    note = (
        f"Clusters are those that the run itself gave to its images, after epoch {state['epoch']}."
        if own
        else f"{index.location} is not what the run was trained on ({trained_on['folder']}): "
        f"its images are given to the nearest center, without bounds on sizes, after epoch "
        f"{state['epoch']}."
    )
    return pictures_of(
        stream,
        heads,
        _images(index),
        metric="cosine",
        bounds=[
            _bounds(config.clustering, index.n_live, k, own) for k in config.clustering.n_clusters
        ],
        note=note + " Borderline images are those with the smallest lead over the next center.",
        of="projected features" if stream.as_they_are else "features of the backbone",
        settings=settings,
        cache_gb=config.machine.cache_gb,
        console=console,
    )


def run_heads(
    state: dict[str, Any],
    config: ClusteringConfig,
    index: ImageIndex | None,
    device: torch.device,
) -> list[Head]:
    """The heads of a checkpoint, with the labels that images had there.

    Args:
        state: of :class:`coke.clustering.Clustering`.
        index: the data set that the run was trained on; None if images have no labels there.

    Raises:
        ValueError: centers are NaN or infinite.
    """
    centers = [head["centers"].to(device, torch.float32) for head in state["heads"]]
    if not all(bool(centers_KE.isfinite().all()) for centers_KE in centers):
        raise ValueError(
            "the centers of the run are NaN or infinite; choose an earlier checkpoint with "
            "--epoch, or leave out DATA for a page of curves alone"
        )
    labels: Sequence[NDArray[np.int64] | None] = [None] * len(centers)
    if index is not None:
        store = LabelStore(len(index), config.n_clusters)
        store.load_state_dict(state["label_store"])
        live = index.live_ids
        ids_N = torch.arange(len(index)) if live is None else torch.from_numpy(live)
        labels = list(store.read(ids_N).numpy())
    return [
        Head(name=name, centers=centers_KE, labels=labels_N)
        for name, centers_KE, labels_N in zip(
            head_names(config.n_clusters), centers, labels, strict=True
        )
    ]


def head_names(n_clusters: Sequence[int]) -> list[str]:
    """``K=3,000`` for each head; with its number where several have so many clusters."""
    return [
        f"K={k:,}" + (f" (head {j + 1})" if list(n_clusters).count(k) > 1 else "")
        for j, k in enumerate(n_clusters)
    ]


def _bounds(config: ClusteringConfig, n: int, n_clusters: int, own: bool) -> SizeBounds:
    """Bounds in whole images; none for other data than the run's."""
    if not own:
        return SizeBounds(lower=0, upper=math.inf)
    exact = ratio_bounds(n, n_clusters, config.min_ratio, config.max_ratio)
    upper = exact.upper if math.isinf(exact.upper) else math.ceil(exact.upper)
    return SizeBounds(lower=math.floor(exact.lower), upper=upper)


def _images(index: ImageIndex) -> Images:
    labels_N = live_labels(index)
    live = index.live_ids

    def keys(rows: Sequence[int]) -> list[str]:
        ids = rows if live is None else live[list(rows)].tolist()
        return [index.keys[i] for i in ids]

    return Images(
        index=index,
        row_ids=live,
        classes=labels_N if bool((labels_N >= 0).any()) else None,
        class_names=index.manifest.classes,
        keys=keys,
    )


def _stream(
    index: ImageIndex,
    config: Config,
    model: CoKe,
    of: RunImages,
    embedding: Embedding | None,
    epoch: int,
    device: torch.device,
) -> FeatureStream:
    if embedding is None or of.features is None:
        return ImageFeatures(index, config, model, batch_size=of.batch_size, device=device)
    embedding.check_data(index)
    embedding.check_weights(lambda layer: layer_network(model, layer), epoch)
    projected = embedding.layer == "projector"
    return FileFeatures(
        open_features(of.features),
        project=None if projected else projection_of(model, device),
        directed=projected,
        device=device,
    )
