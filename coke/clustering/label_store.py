"""The id-indexed dictionary of pseudo labels: one row per image, rewritten every epoch.

It lives outside the DDP-wrapped module on purpose: DDP broadcasts registered buffers at every
forward, which for millions of ids costs more than the labels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

UNSEEN = -1


def _storage_dtype(n_clusters: int) -> torch.dtype:
    """Smallest type holding labels 0..K-1 and one all-ones pattern for "unseen"."""
    if n_clusters <= 0xFF:
        return torch.uint8
    if n_clusters <= 0xFFFF:
        return torch.int16  # read back as unsigned, so 2 bytes last up to K = 65,535
    return torch.int32


class LabelStore:
    """Hard labels (heads, N) of the last epoch that wrote each id; -1 = never written.

    Args:
        n_ids: number of images N; ids are 0..N-1.
        n_clusters: clusters K of each head.

    Attributes:
        epoch: the epoch whose labels were written last, -1 before the first.
    """

    def __init__(
        self,
        n_ids: int,
        n_clusters: tuple[int, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        if n_ids < 1:
            raise ValueError(f"n_ids is {n_ids}; a label store needs at least one image")
        self.n_ids = n_ids
        self.n_clusters = tuple(n_clusters)
        dtype = _storage_dtype(max(self.n_clusters))
        self._mask = {torch.uint8: 0xFF, torch.int16: 0xFFFF, torch.int32: 0xFFFFFFFF}[dtype]
        self._labels = torch.full((len(n_clusters), n_ids), 0, dtype=dtype, device=device)
        self._labels.copy_(torch.full((1,), self._mask, dtype=torch.int64).to(dtype))
        self.epoch = -1

    def __len__(self) -> int:
        return self.n_ids

    @property
    def bytes_per_label(self) -> int:
        return self._labels.element_size()

    def read(self, ids_B: Tensor) -> Tensor:
        """Labels (heads, B) int64 of these ids, -1 where unseen."""
        raw = self._labels[:, ids_B].to(torch.int64) & self._mask
        return torch.where(raw == self._mask, UNSEEN, raw)

    def write(self, ids_B: Tensor, labels_HB: Tensor, epoch: int) -> None:
        """Stores labels (heads, B) int64 for these ids as the ones of ``epoch``."""
        self._labels[:, ids_B] = labels_HB.to(self._labels.dtype)
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self._labels, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        labels = state["labels"]
        if labels.shape != self._labels.shape or labels.dtype != self._labels.dtype:
            raise ValueError(
                f"saved labels are {tuple(labels.shape)} {labels.dtype}, this label store is "
                f"{tuple(self._labels.shape)} {self._labels.dtype}: other data or other clusters"
            )
        self._labels.copy_(labels)
        self.epoch = int(state["epoch"])


class SparseLabels:
    """Averaged labels of the second stage: at most ``size`` (cluster, weight) pairs per id.

    One head. Weights of an id sum to one (Eqn. 13); empty slots have weight 0.
    """

    def __init__(self, labels_N: Tensor, size: int, n_clusters: int) -> None:
        storage = torch.int16 if n_clusters <= 0x7FFF else torch.int32
        self.clusters_NS = torch.zeros((len(labels_N), size), dtype=storage, device=labels_N.device)
        self.weights_NS = torch.zeros((len(labels_N), size), device=labels_N.device)
        self.clusters_NS[:, 0] = labels_N.clamp(min=0).to(storage)
        self.weights_NS[:, 0] = (labels_N >= 0).float()  # an unseen id has no label yet
        self.n_clusters = n_clusters

    def average_in(
        self, ids_B: Tensor, labels_B: Tensor, weight: float, valid: Tensor | None = None
    ) -> None:
        """Mixes a new hard label into each id with ``weight``.

        A cluster already listed is topped up in place; any other takes the slot of the smallest
        weight, and the rest is rescaled to sum to one. If the scalar ``valid`` is false, nothing
        changes.
        """
        clusters_BS = self.clusters_NS[ids_B].to(torch.int64)
        weights_BS = self.weights_NS[ids_B]
        listed_BS = (clusters_BS == labels_B.unsqueeze(1)) & (weights_BS > 0)
        known_B = listed_BS.any(dim=1)
        slot_B = torch.where(known_B, listed_BS.int().argmax(dim=1), weights_BS.argmin(dim=1))
        rows = torch.arange(len(ids_B), device=ids_B.device)

        # Known: everything shrinks by (1 - weight). New: the evicted slot goes, the rest is
        # rescaled so that it sums to (1 - weight) again.
        kept_BS = weights_BS.clone()
        kept_BS[rows, slot_B] = torch.where(known_B, weights_BS[rows, slot_B], 0.0)
        left_B1 = kept_BS.sum(dim=1, keepdim=True).clamp(min=1e-12)
        kept_BS = kept_BS * ((1 - weight) / left_B1)
        kept_BS[rows, slot_B] += weight
        kept_BS = kept_BS / kept_BS.sum(dim=1, keepdim=True)  # where nothing else was left
        if valid is not None:
            labels_B = torch.where(valid, labels_B, clusters_BS[rows, slot_B])
            kept_BS = torch.where(valid, kept_BS, weights_BS)
        clusters_BS[rows, slot_B] = labels_B
        self.clusters_NS[ids_B] = clusters_BS.to(self.clusters_NS.dtype)
        self.weights_NS[ids_B] = kept_BS

    def targets(self, ids_B: Tensor, temperature: float) -> Tensor:
        """Smoothed soft labels (B, K): a softmax over the listed clusters only (App. B.2.2)."""
        weights_BS = self.weights_NS[ids_B]
        soft_BS = torch.where(weights_BS > 0, (weights_BS / temperature).exp(), 0.0)
        soft_BS = soft_BS / soft_BS.sum(dim=1, keepdim=True).clamp(min=1e-12)
        dense_BK = torch.zeros((len(ids_B), self.n_clusters), device=soft_BS.device)
        return dense_BK.scatter_add_(1, self.clusters_NS[ids_B].to(torch.int64), soft_BS)

    def state_dict(self) -> dict[str, Any]:
        return {"clusters": self.clusters_NS, "weights": self.weights_NS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        clusters = state["clusters"]
        if clusters.shape != self.clusters_NS.shape:
            raise ValueError(
                f"saved averaged labels are {tuple(clusters.shape)} (ids, label_size), this run "
                f"has {tuple(self.clusters_NS.shape)}: resume with the same label_size"
            )
        self.clusters_NS.copy_(clusters)
        self.weights_NS.copy_(state["weights"])
