"""One clustering head: the centers, duals and counts of its K clusters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.assignment import assign, assign_in_sweeps, update_centers, update_duals
from coke.clustering.sizes import SizeBounds

DUAL_RULES = ("paper", "auto")
AUTO_STEP = 16.0  # times K / N, per instance
AUTO_SWEEP = 8  # instances between two dual moves


class Head:
    """State and updates of one head (Alg. 1).

    Attributes:
        centers: (K, D) float32, frozen during an epoch: what the loss discriminates against.
        running_centers: (K, D) float32, moved after every batch.
        duals: (K,) float32.
        counts: (K,) float32, instances received this epoch.

    The dual rule ``paper`` takes one step of fixed size ``dual_lr`` per batch, as the released
    code does; it holds the constraint at ImageNet scale and fails where N / (K * batch) is small.
    ``auto`` takes a step of 16 K / N per instance, after every 8 instances, which holds it there
    as well.
    """

    def __init__(
        self,
        *,
        n_ids: int,
        centers_KD: Tensor,
        min_ratio: float,
        dual_rule: str,
        dual_lr: float,
    ) -> None:
        self.centers = F.normalize(centers_KD.to(torch.float32), dim=1)
        self.running_centers = self.centers.clone()
        self.n_clusters, self.dim = self.centers.shape
        self.duals = self.centers.new_zeros(self.n_clusters)
        self.counts = self.centers.new_zeros(self.n_clusters)
        self.n_ids = n_ids
        self.min_ratio = min_ratio
        self.dual_rule = dual_rule
        self.dual_lr = dual_lr
        self._averaged_epochs = 0  # epochs averaged into the frozen centers (second stage)

    @property
    def lower_bound(self) -> float:
        """Smallest allowed cluster size over an epoch: min_ratio * N / K."""
        return self.min_ratio * self.n_ids / self.n_clusters

    def step(self, features_BD: Tensor, *, second_stage: bool) -> Tensor:
        """Assigns a batch, then moves duals, counts and running centers. Returns labels (B,)."""
        against = self.centers if second_stage else self.running_centers
        free = self.min_ratio >= 1  # an equality constraint has duals of any sign
        if self.dual_rule == "paper":
            labels = assign(features_BD, against, self.duals)
            self.duals = update_duals(
                self.duals, labels, lr=self.dual_lr, min_ratio=self.min_ratio, free=free
            )
        else:
            share = self.min_ratio / self.n_clusters
            labels, self.duals = assign_in_sweeps(
                features_BD @ against.T,
                self.duals,
                SizeBounds(lower=share, upper=share if free else math.inf),
                rate=AUTO_STEP * self.n_clusters / self.n_ids,
                sweep=AUTO_SWEEP,
            )
        self.running_centers, self.counts = update_centers(
            self.running_centers, self.counts, features_BD, labels, normalize=not second_stage
        )
        return labels

    def end_epoch(self, *, second_stage: bool, averaging_starts: bool) -> None:
        """Freezes the running centers for the next epoch and clears the counts.

        In the second stage the frozen centers are the running average of the epochs' centers
        (Eqn. 13), and the running centers restart from that average.
        """
        if second_stage:
            self._averaged_epochs = 1 if averaging_starts else self._averaged_epochs + 1
            weight = 1.0 / self._averaged_epochs
            latest = F.normalize(self.running_centers, dim=1)
            self.centers = F.normalize((1 - weight) * self.centers + weight * latest, dim=1)
            self.running_centers = self.centers.clone()
        else:
            self.centers = self.running_centers.clone()
        self.counts = torch.zeros_like(self.counts)

    def state_dict(self) -> dict[str, Any]:
        return {
            "centers": self.centers,
            "running_centers": self.running_centers,
            "duals": self.duals,
            "counts": self.counts,
            "averaged_epochs": self._averaged_epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["centers"].shape != self.centers.shape:
            raise ValueError(
                f"saved centers are {tuple(state['centers'].shape)}, this head has "
                f"{tuple(self.centers.shape)} (clusters, dim): resume with the same setting"
            )
        device = self.centers.device
        self.centers = state["centers"].to(device, copy=True)
        self.running_centers = state["running_centers"].to(device, copy=True)
        self.duals = state["duals"].to(device, copy=True)
        self.counts = state["counts"].to(device, copy=True)
        self._averaged_epochs = int(state["averaged_epochs"])
