"""One clustering head: the centers, duals and counts of its K clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.assignment import assign, similarities, update_centers_, update_duals
from coke.clustering.scratch import Scratch
from coke.clustering.sizes import ratio_bounds
from coke.clustering.stream import CARRY, Stream
from coke.clustering.streaming_assignment import assign_stream

#: An untrained network's features are so alike that its first duals are many spreads away.
FIRST_STEP = 12.0


class Head:
    """State and updates of one head (Alg. 1).

    Attributes:
        centers: (K, D) float32, frozen during an epoch: what the loss discriminates against.
        running_centers: (K, D) float32, moved in place after every batch.
        duals: (K,) float32.
        counts: (K,) float32, instances received this epoch; changed in place.
        sizes: (K,) float32, ids that have each label now, whenever they were seen (``auto`` only).
        bounds: sizes that the clusters should have over an epoch.

    The dual rule ``paper`` takes one step of fixed size ``dual_lr`` per batch, as the released
    code does; it holds the constraint at ImageNet scale and fails where N / (K * batch) is small.
    ``auto`` holds it there as well, see :func:`assign_stream`; and a running center starts an epoch
    with 0.3 of the weight it ended the last with, so that it is not the first few instances alone.

    With the center update ``running``, a batch is assigned to the running centers, which stay on
    the unit sphere (Eqn. 11). With ``epoch``, and always in the second stage, it is assigned to the
    frozen ones, and the running centers are plain means that replace them when the epoch ends
    (Eqn. 10).
    """

    def __init__(
        self,
        *,
        n_points: int,
        centers_KD: Tensor,
        min_ratio: float,
        max_ratio: float = 0.0,
        dual_rule: str,
        dual_lr: float,
        center_update: str = "running",
        scratch: Scratch | None = None,
    ) -> None:
        self.centers = F.normalize(centers_KD.to(torch.float32), dim=1)
        self.running_centers = self.centers.clone()
        self.n_clusters, self.dim = self.centers.shape
        self.duals = self.centers.new_zeros(self.n_clusters)
        self.counts = self.centers.new_zeros(self.n_clusters)
        self.sizes = self.centers.new_zeros(self.n_clusters)
        self._weights_K = self.centers.new_zeros(self.n_clusters)  # instances a center stands for
        self.n_points = n_points
        self.dual_rule = dual_rule
        self.dual_lr = dual_lr
        self.center_update = center_update
        self._scratch = scratch or Scratch()
        self.bounds = ratio_bounds(n_points, self.n_clusters, min_ratio, max_ratio)
        if min_ratio >= 1:  # an equality: its duals take any sign
            max_ratio = min_ratio
        steered = ratio_bounds(n_points, self.n_clusters, min_ratio, max_ratio)
        self._stream = Stream.of(steered, n_points, self.n_clusters, FIRST_STEP)
        # The paper's rule compares shares of a batch.
        self._shares = ratio_bounds(1, self.n_clusters, min_ratio, max_ratio)
        self._averaged_epochs = 0  # epochs averaged into the frozen centers (second stage)

    def moves_once_per_epoch(self, second_stage: bool) -> bool:
        """Whether batches are assigned to the frozen centers."""
        return second_stage or self.center_update == "epoch"

    def step(
        self,
        features_BD: Tensor,
        before_B: Tensor,
        *,
        second_stage: bool,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Assigns a batch, then moves duals, counts and running centers. Returns labels (B,).

        Args:
            before_B: (B,) int64, the labels that these ids have so far; -1 for none.
            valid: () bool; the batch changes nothing if it is false. True if None. It
                costs a copy of the state and a choice between both: (K, D) numbers read and written
                twice, where a step alone touches the rows of the batch's clusters.
        """
        before = None if valid is None else [state.clone() for state in self._moving()]
        labels_B = self._step(features_BD, before_B, second_stage=second_stage)
        if valid is None or before is None:
            return labels_B
        for moved, kept in zip(self._moving(), before, strict=True):
            torch.where(valid, moved, kept, out=moved)
        return torch.where(valid, labels_B, before_B)

    def _moving(self) -> tuple[Tensor, ...]:
        """What a step changes."""
        return self.running_centers, self.duals, self.counts, self.sizes, self._weights_K

    def _step(self, features_BD: Tensor, before_B: Tensor, *, second_stage: bool) -> Tensor:
        once = self.moves_once_per_epoch(second_stage)
        if self.dual_rule == "auto":
            against = self.centers if once else self.running_centers
            values_BK = similarities(features_BD, against, self._scratch)
            labels_B, self.duals, self.sizes = assign_stream(
                values_BK, before_B, self.duals, self.sizes, self._stream
            )
        else:
            labels_B = self.best(features_BD, second_stage=second_stage)
            self.duals = update_duals(self.duals, labels_B, lr=self.dual_lr, shares=self._shares)
        self.counts.index_add_(0, labels_B, torch.ones_like(labels_B, dtype=self.counts.dtype))
        update_centers_(
            self.running_centers, self._weights_K, features_BD, labels_B, normalize=not once
        )
        return labels_B

    def best(self, features_BD: Tensor, *, second_stage: bool) -> Tensor:
        """Labels (B,): the cluster with the highest similarity plus dual (Eqn. 8)."""
        once = self.moves_once_per_epoch(second_stage)
        against = self.centers if once else self.running_centers
        return assign(features_BD, against, self.duals, self._scratch)

    def end_epoch(
        self, *, second_stage: bool, averaging_starts: bool, second_stage_next: bool = False
    ) -> None:
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
        elif self.moves_once_per_epoch(second_stage):
            self.centers = F.normalize(self.running_centers, dim=1)
            self.running_centers = self.centers.clone()
        else:
            self.centers = self.running_centers.clone()
        plain_means = self.moves_once_per_epoch(second_stage or second_stage_next)
        carry = CARRY if self.dual_rule == "auto" and not plain_means else 0.0
        self._weights_K = carry * self._weights_K
        self.counts = torch.zeros_like(self.counts)

    def state_dict(self) -> dict[str, Any]:
        """The state's own tensors: copy what must outlive the next step."""
        return {
            "centers": self.centers,
            "running_centers": self.running_centers,
            "duals": self.duals,
            "counts": self.counts,
            "sizes": self.sizes,
            "weights": self._weights_K,
            "averaged_epochs": self._averaged_epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["centers"].shape != self.centers.shape:
            raise ValueError(
                f"saved centers are {tuple(state['centers'].shape)}, this head has "
                f"{tuple(self.centers.shape)} (clusters, dim): resume with the same setting"
            )
        for name in ("sizes", "weights"):
            if name not in state:
                raise ValueError(
                    f"the saved clustering has no {name!r}: an older coke wrote it; start a new "
                    "run, with --init-from for its weights"
                )
        device = self.centers.device
        self.centers = state["centers"].to(device, copy=True)
        self.running_centers = state["running_centers"].to(device, copy=True)
        self.duals = state["duals"].to(device, copy=True)
        self.counts = state["counts"].to(device, copy=True)
        self.sizes = state["sizes"].to(device, copy=True)
        self._weights_K = state["weights"].to(device, copy=True)
        self._averaged_epochs = int(state["averaged_epochs"])
