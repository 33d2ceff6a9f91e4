"""Section ``[clustering]``: heads, the size constraint, labels and centers."""

from __future__ import annotations

from dataclasses import dataclass

DUAL_RULES = ("paper", "auto")
CENTER_UPDATES = ("running", "epoch")
#: Where the loss takes labels and centers from: the epoch before, or the iteration it is in.
COUPLINGS = ("last_epoch", "current")
#: A first stage longer than any run: labels and centers are never averaged.
NO_SECOND_STAGE = 100_000


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """Settings of :class:`coke.clustering.Clustering`.

    Attributes:
        n_clusters: clusters K of each head.
        min_ratio: lower bound of a cluster's size as a share of N / K; 1 means equal sizes.
        max_ratio: upper bound, likewise, 1 or more; 0 for none. With equal sizes it says nothing.
        dual_rule: ``"paper"`` (one step of ``dual_lr`` per batch) or ``"auto"``.
        dual_lr: dual step of the paper's rule; ignored by ``auto``.
        first_stage_epochs: T', counted with the scan; from this epoch on, labels and centers are
            averaged (Eqn. 13). More than the epochs of the run for no second stage.
        label_size: clusters that an averaged label may hold.
        label_temperature: temperature that smooths averaged labels (App. B.2.2).
        center_update: ``"running"`` moves centers after every batch (Eqn. 11), ``"epoch"`` once
            per epoch (Eqn. 10), as the second stage always does.
        labels_from, centers_from: the ablation of Table 2. The loss takes labels and centers of
            the ``"last_epoch"``, as the paper does, or the ``"current"`` ones.
    """

    n_clusters: tuple[int, ...] = (3000,)
    min_ratio: float = 0.4
    max_ratio: float = 0.0
    dual_rule: str = "auto"
    dual_lr: float = 20.0
    first_stage_epochs: int = 801
    label_size: int = 5
    label_temperature: float = 0.5
    center_update: str = "running"
    labels_from: str = "last_epoch"
    centers_from: str = "last_epoch"

    def __post_init__(self) -> None:
        if not self.n_clusters:
            raise ValueError("n_clusters is empty: name at least one head, such as (3000,)")
        for k in self.n_clusters:
            if k < 2:
                raise ValueError(
                    f"n_clusters has a head with {k} clusters; a head needs at least 2"
                )
        if not 0 <= self.min_ratio <= 1:
            raise ValueError(
                f"min_ratio is {self.min_ratio}; it is a share of N / K, between 0 and 1"
            )
        if self.max_ratio != 0 and not self.max_ratio >= 1:  # not NaN either
            raise ValueError(
                f"max_ratio is {self.max_ratio}; it is a share of N / K, 1 or more, or 0 for no "
                "upper bound"
            )
        if self.dual_lr < 0:
            raise ValueError(f"dual_lr is {self.dual_lr}; give 0 or more")
        if self.first_stage_epochs < 1:
            raise ValueError(
                f"first_stage_epochs is {self.first_stage_epochs}; it counts the scan, so it is at "
                "least 1; more than epochs for no second stage"
            )
        if self.label_size < 1:
            raise ValueError(
                f"label_size is {self.label_size}; an averaged label holds at least 1 cluster"
            )
        if self.label_temperature <= 0:
            raise ValueError(f"label_temperature is {self.label_temperature}; it must be positive")
        for name, valid in (
            ("dual_rule", DUAL_RULES),
            ("center_update", CENTER_UPDATES),
            ("labels_from", COUPLINGS),
            ("centers_from", COUPLINGS),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(valid)}"
                )
        if self.center_update == "epoch" and self.centers_from == "current":
            raise ValueError(
                "centers_from is 'current', but with center_update 'epoch' centers do not move "
                "within an epoch; use center_update 'running'"
            )

    def check_fits(self, n_points: int) -> None:
        """Raises ValueError if a head has more clusters than the data set has images."""
        for k in self.n_clusters:
            if k > n_points:
                raise ValueError(
                    f"n_clusters has a head with {k} clusters for {n_points} images: use fewer "
                    "clusters than images"
                    + (f"; n_clusters=[{n_points // 20}] has 20 in each" if n_points >= 40 else "")
                )
