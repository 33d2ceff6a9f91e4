"""Nearest neighbours of a few rows among all, found while all pass by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coke.tools.page.content import Section, Widget

_TINY = 1e-12  # as in F.normalize: a row of zeros has the cosine 0
QUERIES, NEIGHBOURS = 12, 12  # rows that are shown, and neighbours of each


class NearestRows:
    """The nearest other rows of Q queries.

    Args:
        rows_Q: the queries' rows, ascending.
        features_QD: their features.
        metric: ``"cosine"`` or ``"euclidean"``.
        k: neighbours of each; fewer where there are fewer other rows.
    """

    def __init__(
        self, rows_Q: NDArray[np.int64], features_QD: Tensor, *, metric: str, k: int = NEIGHBOURS
    ) -> None:
        self.rows_Q, self._metric, self._k = rows_Q, metric, k
        self._queries_QD = F.normalize(features_QD, dim=1) if metric == "cosine" else features_QD
        device = features_QD.device
        self._own_Q = torch.from_numpy(rows_Q).to(device)
        self._best_QK = features_QD.new_empty((len(rows_Q), 0))
        self._found_QK = torch.empty((len(rows_Q), 0), dtype=torch.int64, device=device)

    def add(self, start: int, features_BD: Tensor) -> None:
        """Compares rows ``start`` to ``start + B`` with the queries."""
        if self._metric == "cosine":
            norms_B = torch.linalg.vector_norm(features_BD, dim=1).clamp(min=_TINY)
            near_QB = self._queries_QD @ features_BD.T / norms_B  # no copy of all features
        else:
            near_QB = -torch.cdist(self._queries_QD, features_BD)
        rows_B = torch.arange(start, start + len(features_BD), device=features_BD.device)
        near_QB = near_QB.masked_fill(rows_B == self._own_Q.unsqueeze(1), -torch.inf)
        near = torch.cat([self._best_QK, near_QB], dim=1)
        rows = torch.cat([self._found_QK, rows_B.expand(len(near_QB), -1)], dim=1)
        self._best_QK, places = near.topk(min(self._k, near.shape[1]), dim=1)
        self._found_QK = rows.gather(1, places)

    def found(self) -> list[list[tuple[int, float]]]:
        """Row and cosine (or distance) of each query's neighbours, the nearest first."""
        near_QK = self._best_QK if self._metric == "cosine" else -self._best_QK
        return [
            [(row, value) for row, value in zip(rows, values, strict=True) if np.isfinite(value)]
            for rows, values in zip(self._found_QK.tolist(), near_QK.tolist(), strict=True)
        ]

    def shown_rows(self) -> list[int]:
        """Queries and neighbours."""
        return [*self.rows_Q.tolist(), *(row for of in self.found() for row, _ in of)]


def neighbours_section(
    nearest: NearestRows, classes_N: NDArray[np.int64] | None, metric: str, of: str
) -> Section:
    """A line of images for each query.

    Args:
        classes_N: class of each row, -1 for none; None without classes.
        of: what the features are, in words.
    """
    rows = [
        {"row": row, "near": [[other, round(value, 4)] for other, value in found]}
        for row, found in zip(nearest.rows_Q.tolist(), nearest.found(), strict=True)
    ]
    data: Mapping[str, Any] = {"rows": rows, "measure": _measure(metric)}
    note = (
        f"Each line begins with an image drawn at random; behind it are the images whose {of} are "
        f"nearest, by {'cosine' if metric == 'cosine' else 'Euclidean distance'}."
    )
    return Section(
        title="Nearest neighbours",
        note=note,
        lines=_agreement(nearest, classes_N),
        widgets=[Widget(kind="neighbours", data=data)],
    )


def _agreement(nearest: NearestRows, classes_N: NDArray[np.int64] | None) -> list[str]:
    if classes_N is None:
        return []
    pairs = [
        (classes_N[row], classes_N[other])
        for row, found in zip(nearest.rows_Q.tolist(), nearest.found(), strict=True)
        for other, _ in found
        if classes_N[row] >= 0 and classes_N[other] >= 0
    ]
    if not pairs:
        return []
    same = sum(a == b for a, b in pairs)
    return [
        f"{same:,} of these {len(pairs):,} neighbours have the class of their image, and a green "
        "frame."
    ]


def _measure(metric: str) -> str:
    return "cosine" if metric == "cosine" else "distance"
