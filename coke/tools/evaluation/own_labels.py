"""The clusters that a run itself gives to images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from coke.clustering import Clustering
from coke.clustering.label_store import LabelStore
from coke.model.coke_model import unit
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.representations import extract, frozen
from coke.tools.evaluation.subject import Subject
from coke.tools.evaluation.subset import live_ids
from coke.tools.runs.run_folder import RunFolder

#: Where own labels come from.
STORED, NEAREST = "labels that the run stored", "highest similarity plus dual, of a center crop"
_ROWS = 4096  # images whose similarities to all centers are in memory at once


@dataclass(frozen=True, kw_only=True)
class OwnLabels:
    """What one head says of the images of a data set.

    Attributes:
        n_clusters: K of the head.
        labels: (N,) int64 of the images, ids ascending; -1 where training never saw an image.
    """

    n_clusters: int
    labels: NDArray[np.int64]


def source_of(subject: Subject, index: ImageIndex) -> str:
    """``STORED`` where the run was trained on all these images and ids, else ``NEAREST``."""
    run = RunFolder(subject.run)
    if run.data()["identity"] != index.identity:
        return NEAREST
    trained = run.chosen_ids()
    if trained is None or bool(np.isin(live_ids(index), trained).all()):
        return STORED
    return NEAREST


def own_labels(
    subject: Subject, index: ImageIndex, batch_size: int, console: Console
) -> list[OwnLabels]:
    """Labels of each head of the run's checkpoint.

    Those of the training images are in the checkpoint: each was assigned under the size constraint
    when training saw the image last. Other images get the cluster of the highest similarity plus
    dual (Eqn. 8) of their center crop's feature after the projector, which no constraint holds.

    Raises:
        ValueError: features that are not finite.
    """
    state = RunFolder(subject.run).state(subject.epoch)["clustering"]
    if source_of(subject, index) == STORED:
        return _stored(subject, index, state["label_store"])
    model = subject.model
    network = nn.Sequential(model.backbone, model.projector, _Unit())
    # In float32: a label is the largest of similarities that may be close.
    represent = {"the projector": frozen(network, subject.device)}
    found = extract(index, subject.config, represent, batch_size, subject.device, console)
    return _nearest(subject, found["the projector"], state)


class _Unit(nn.Module):
    def forward(self, features_BD: Tensor) -> Tensor:
        return unit(features_BD)


def _stored(subject: Subject, index: ImageIndex, state: dict[str, Tensor]) -> list[OwnLabels]:
    n_clusters = subject.config.clustering.n_clusters
    store = LabelStore(len(index), n_clusters)
    store.load_state_dict(state)
    ids = torch.arange(len(index)) if index.live_ids is None else torch.from_numpy(index.live_ids)
    labels_HN = store.read(ids).numpy()
    return [OwnLabels(n_clusters=k, labels=n) for k, n in zip(n_clusters, labels_HN, strict=True)]


def _nearest(subject: Subject, features_ND: Tensor, state: dict[str, Tensor]) -> list[OwnLabels]:
    config = subject.config
    n_ids = state["label_store"]["labels"].shape[1]  # type: ignore[index]
    clustering = Clustering(
        config.clustering, n_ids=n_ids, dim=config.model.dim, device=features_ND.device
    )
    clustering.load_state_dict(state)
    parts = [clustering.current_targets(part) for part in features_ND.split(_ROWS)]
    return [
        OwnLabels(n_clusters=head.n_clusters, labels=torch.cat(labels).cpu().numpy())
        for head, labels in zip(clustering.heads, zip(*parts, strict=True), strict=True)
    ]
