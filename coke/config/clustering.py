"""Settings of the clustering of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """See :class:`coke.clustering.Clustering`, which takes these.

    Attributes:
        n_clusters: clusters K of each head.
        min_ratio: lower bound of a cluster's size as a share of N / K.
        dual_rule: ``"paper"`` (one step of ``dual_lr`` per batch) or ``"auto"``.
        first_stage_epochs: epochs, the scan included, before labels and centers are averaged.
        label_size, label_temperature: averaged labels of the second stage.
        center_update: ``"running"`` moves centers after every batch, ``"epoch"`` once per epoch.
        labels_from, centers_from: the ablation of Table 2: the loss takes them from the
            ``"last_epoch"`` (the paper's choice) or uses the ``"current"`` ones.
    """

    n_clusters: tuple[int, ...] = (3000,)
    min_ratio: float = 0.4
    dual_rule: str = "auto"
    dual_lr: float = 20.0
    first_stage_epochs: int = 100_000
    label_size: int = 5
    label_temperature: float = 0.5
    center_update: str = "running"
    labels_from: str = "last_epoch"
    centers_from: str = "last_epoch"

    def __post_init__(self) -> None:
        if self.dual_lr <= 0:
            raise ValueError(f"dual_lr is {self.dual_lr}; it must be positive")
        if self.first_stage_epochs < 1:
            raise ValueError(
                f"first_stage_epochs is {self.first_stage_epochs}; it counts the scan, so it is at "
                "least 1; more than epochs for no second stage"
            )
