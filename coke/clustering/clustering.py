"""The clustering state of a training run: all heads together with the label store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coke.clustering.assignment import sizes_of
from coke.clustering.batch_check import BatchCheck
from coke.clustering.head import Head
from coke.clustering.label_store import LabelStore, SparseLabels
from coke.clustering.scratch import Scratch
from coke.config.clustering import ClusteringConfig


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """What one epoch did to one head: sizes in images, violation relative to the bound."""

    n_clusters: int
    smallest: int
    largest: int
    empty: int
    violation: float  # largest breach of a bound, as a share of that bound (Sec. 3.2.1)
    churn: float  # share of ids whose label differs from the epoch before


class Clustering:
    """Online constrained k-means over several heads (Alg. 1), with ids.

    The order of one step is the released code's: read last epoch's labels (:meth:`targets`), then
    :meth:`step` assigns, moves duals, counts and centers, and writes the label store. In epoch 0,
    the initialisation scan, ``targets`` is asked after ``step``.

    Args:
        config: the settings; those of :class:`ClusteringConfig`'s defaults if None.
        n_ids: number of ids; the label store keeps a label for each.
        n_points: number of ids that have an image, N of the bounds; ``n_ids`` if None.
        dim: feature dimension D.
        centers: initial centers, a (K, D) tensor per head; random on the sphere if None.
        seed: seed of the random centers.
        settings: fields of :class:`ClusteringConfig`, which replace those of ``config``.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        config: ClusteringConfig | None = None,
        *,
        n_ids: int,
        n_points: int | None = None,
        dim: int,
        centers: Sequence[Tensor] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> None:
        if "n_clusters" in settings:
            settings["n_clusters"] = tuple(int(k) for k in settings["n_clusters"])
        config = replace(config or ClusteringConfig(), **settings)
        n_points = n_ids if n_points is None else n_points
        if not 0 < n_points <= n_ids:
            raise ValueError(f"n_points is {n_points}; give how many of the {n_ids} ids there are")
        config.check_fits(n_points)
        n_clusters = config.n_clusters
        if centers is None:
            generator = torch.Generator().manual_seed(seed)
            centers = [torch.randn(k, dim, generator=generator) for k in n_clusters]
        if [tuple(c.shape) for c in centers] != [(k, dim) for k in n_clusters]:
            raise ValueError(
                f"centers have shapes {[tuple(c.shape) for c in centers]}; heads with n_clusters "
                f"{n_clusters} and dim {dim} need {[(k, dim) for k in n_clusters]}"
            )
        scratch = Scratch()  # heads take turns
        self.heads = [
            Head(
                n_points=n_points,
                centers_KD=c.to(device),
                min_ratio=config.min_ratio,
                max_ratio=config.max_ratio,
                dual_rule=config.dual_rule,
                dual_lr=config.dual_lr,
                center_update=config.center_update,
                scratch=scratch,
            )
            for c in centers
        ]
        self.dim = dim
        self.n_ids = n_ids
        self.config = config
        self.label_store = LabelStore(n_ids, n_clusters, device)
        self.soft_labels: list[SparseLabels] | None = None
        self.epoch = 0
        self._changed_H = torch.zeros(len(self.heads), dtype=torch.int64, device=device)
        self._labelled = torch.zeros((), dtype=torch.int64, device=device)
        self._check = BatchCheck(n_ids, device)

    @property
    def second_stage(self) -> bool:
        return self.epoch >= self.config.first_stage_epochs

    def targets(self, ids: Tensor) -> list[Tensor]:
        """What each head's loss is trained towards: last epoch's labels of these ids.

        Returns, per head, hard labels (B,) int64, or from the second epoch of the second stage on
        soft targets (B, K) float32 that sum to one.
        """
        if self.soft_labels is not None and self.epoch > self.config.first_stage_epochs:
            return [soft.targets(ids, self.config.label_temperature) for soft in self.soft_labels]
        return list(self.label_store.read(ids))

    def loss_centers(self) -> list[Tensor]:
        """What the loss discriminates against: per head (K, D) float32, unit norm.

        The centers of the epoch before; with ``centers_from="current"`` those that move after
        every batch. In the second stage none do, and these are last epoch's as well.
        """
        if self.config.centers_from == "current" and not self.second_stage:
            return [head.running_centers for head in self.heads]
        return [head.centers for head in self.heads]

    @torch.no_grad()
    def current_targets(self, features: Tensor) -> list[Tensor]:
        """The best clusters for these features now: what ``labels_from="current"`` trains on.

        Highest similarity plus dual (Eqn. 8), which the rule ``paper`` assigns to. Nothing is
        learned from them; :meth:`step` does that, once for the global batch.

        Args:
            features: (B, D) float32, as for :meth:`step`.

        Returns: per head hard labels (B,) int64, in the second stage too.
        """
        self._check_shape(features)
        return [head.best(features, second_stage=self.second_stage) for head in self.heads]

    @torch.no_grad()
    def step(self, features: Tensor, ids: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """Assigns a batch under the size constraint and learns from it.

        With several processes it is the global batch, the same on every rank, see
        :func:`coke.distributed.gather.gather_batch`.

        Args:
            features: (B, D) float32; unit norm, or the mean of unit-norm views (Eqn. 15).
            ids: (B,) int64, each at most once.
            valid: () bool on the device: whether the batch counts. If it is false, nothing changes,
                whatever the features hold. Nothing waits for it. True if None.

        Returns: per head the labels (B,) int64 that the ids have now.

        Raises:
            ValueError: shapes or dtypes do not fit, features hold NaN or a zero vector, ids are out
                of range or repeated; before anything is changed. On a GPU, what depends on values
                is raised by :meth:`end_epoch` or :meth:`state_dict`, whichever comes first: to look
                at them in every step, the host would have to wait for the device.
        """
        self._check_shape(features)
        if ids.ndim != 1 or len(features) != len(ids):
            raise ValueError(
                f"features have shape {tuple(features.shape)} and ids {tuple(ids.shape)}; "
                "give one id per row"
            )
        if ids.dtype != torch.int64:
            raise ValueError(f"ids are {ids.dtype}; give int64")
        self._check.add(features, ids, valid)
        if valid is not None:
            features = torch.where(valid, features, 0.0)
        if ids.device.type == "cpu":
            self._check.raise_for_findings()
        else:
            ids = ids.clamp(0, self.n_ids - 1)  # an index out of range would end the process
        before_HB = self.label_store.read(ids)
        labels = [
            head.step(features, before_B, second_stage=self.second_stage, valid=valid)
            for head, before_B in zip(self.heads, before_HB, strict=True)
        ]
        labels_HB = torch.stack(labels)
        self._changed_H += (before_HB != labels_HB).sum(dim=1)  # stays on the device
        self._labelled += len(ids) if valid is None else valid * len(ids)
        self.label_store.write(ids, labels_HB, self.epoch)
        if self.second_stage:
            self._average_labels(ids, labels, valid)
        return labels

    def set_labels(self, labels_HN: Tensor) -> None:
        """Takes labels (heads, N) int64 of all ids from elsewhere, as the epoch before's."""
        everything = torch.arange(self.n_ids, device=labels_HN.device)
        self.label_store.write(everything, labels_HN, self.epoch - 1)
        for head, labels_N in zip(self.heads, labels_HN, strict=True):
            head.sizes = sizes_of(labels_N, head.n_clusters)

    def _check_shape(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.dim or not len(features):
            raise ValueError(
                f"features have shape {tuple(features.shape)}; give (B, {self.dim}), as dim says, "
                "with at least one row"
            )
        if features.dtype != torch.float32:
            raise ValueError(f"features are {features.dtype}; give float32")

    def _average_labels(self, ids: Tensor, labels: list[Tensor], valid: Tensor | None) -> None:
        if self.soft_labels is None:
            stored_HN = self.label_store.read(torch.arange(self.n_ids, device=ids.device))
            self.soft_labels = self._sparse_labels(stored_HN)
        weight = 1.0 / (self.epoch - self.config.first_stage_epochs + 1)
        for soft, new in zip(self.soft_labels, labels, strict=True):
            soft.average_in(ids, new, weight, valid)

    def _sparse_labels(self, labels_HN: Tensor) -> list[SparseLabels]:
        return [
            SparseLabels(labels_N, self.config.label_size, head.n_clusters)
            for labels_N, head in zip(labels_HN, self.heads, strict=True)
        ]

    def end_epoch(self) -> list[HeadReport]:
        """Freezes (second stage: averages) the centers, clears counts; returns what happened.

        Raises:
            ValueError: on a GPU, a batch of this epoch was unfit, see :meth:`step`.
        """
        self._check.raise_for_findings()
        reports = [
            _report(head, int(self._changed_H[j]) / max(int(self._labelled), 1))
            for j, head in enumerate(self.heads)
        ]
        for head in self.heads:
            head.end_epoch(
                second_stage=self.second_stage,
                averaging_starts=self.epoch == self.config.first_stage_epochs,
                second_stage_next=self.epoch + 1 >= self.config.first_stage_epochs,
            )
        self.epoch += 1
        self._changed_H.zero_()
        self._labelled.zero_()
        return reports

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of a run depends on, at any step.

        These are the state's own tensors: copy what must outlive the next step.

        Raises:
            ValueError: on a GPU, a batch of this epoch was unfit, see :meth:`step`.
        """
        self._check.raise_for_findings()
        return {
            "heads": [head.state_dict() for head in self.heads],
            "label_store": self.label_store.state_dict(),
            "soft_labels": [s.state_dict() for s in self.soft_labels] if self.soft_labels else None,
            "epoch": self.epoch,
            "changed": self._changed_H,
            "labelled": self._labelled,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["heads"]) != len(self.heads):
            raise ValueError(
                f"saved clustering has {len(state['heads'])} heads, this one {len(self.heads)}"
            )
        for head, saved in zip(self.heads, state["heads"], strict=True):
            head.load_state_dict(saved)
        self.label_store.load_state_dict(state["label_store"])
        self.epoch = int(state["epoch"])
        self._changed_H.copy_(state["changed"])
        self._labelled.fill_(int(state["labelled"]))
        self.soft_labels = None
        if state["soft_labels"] is not None:
            everything = torch.arange(self.n_ids, device=self.heads[0].centers.device)
            self.soft_labels = self._sparse_labels(self.label_store.read(everything))
            for soft, saved in zip(self.soft_labels, state["soft_labels"], strict=True):
                soft.load_state_dict(saved)


def _report(head: Head, churn: float) -> HeadReport:
    counts = head.sizes if head.dual_rule == "auto" else head.counts
    return HeadReport(
        n_clusters=head.n_clusters,
        smallest=int(counts.min()),
        largest=int(counts.max()),
        empty=int((counts == 0).sum()),
        violation=head.bounds.violation(counts),
        churn=churn,
    )
