"""Features of images in batches, by row: from a network and its images, or from files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coke.clustering.point_array import float_type
from coke.config.config import Config
from coke.model.coke_model import CoKe, unit
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.labelled_data import rows_of
from coke.tools.evaluation.representations import evaluation_loader, frozen
from coke.tools.features.feature_files import Features


@dataclass(frozen=True, kw_only=True)
class FeatureBatch:
    """Rows ``start`` to ``start + B`` on the device, in float32, or in a file's float64.

    Attributes:
        plain: (B, D), what neighbours and the map compare: of a run, its backbone's features.
        clustered: (B, E), what clusters have centers of: of a run, unit vectors behind its
            projector. The same tensor as ``plain`` where features are clustered as they are.
    """

    start: int
    plain: Tensor
    clustered: Tensor


class FeatureStream(ABC):
    """Features of N rows, which are read once in order, and some of them before that.

    Attributes:
        rows: N.
        device: of the batches.
        as_they_are: rows are clustered as they are, and may be read again at little cost.
    """

    rows: int
    device: torch.device
    as_they_are: bool = False

    @abstractmethod
    def batches(self) -> Iterator[FeatureBatch]:
        """All rows in order."""

    @abstractmethod
    def take(self, rows_M: NDArray[np.int64]) -> Tensor:
        """Plain features (M, D) of some rows, ascending."""


class ImageFeatures(FeatureStream):
    """Features that a run's network gives a data set's images; row r is the r-th id with an image.

    One pass through the backbone gives both kinds.
    """

    def __init__(
        self,
        index: ImageIndex,
        config: Config,
        model: CoKe,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.rows, self.device = index.n_live, device
        self._index, self._config, self._batch_size = index, config, batch_size
        both = _Both(model)
        self._represent = frozen(both, device)
        self._width = both.width

    def batches(self) -> Iterator[FeatureBatch]:
        start = 0
        for features_BD, _ in self._of(self._index):
            plain_BD, clustered_BE = features_BD.split(
                [features_BD.shape[1] - self._width, self._width], dim=1
            )
            yield FeatureBatch(start=start, plain=plain_BD, clustered=clustered_BE)
            start += len(features_BD)

    def take(self, rows_M: NDArray[np.int64]) -> Tensor:
        live = self._index.live_ids
        ids_M = rows_M if live is None else live[rows_M]
        everything = np.arange(len(self._index), dtype=np.int64)
        few = self._index.without(np.setdiff1d(everything, ids_M, assume_unique=True))
        return torch.cat([features_BD[:, : -self._width] for features_BD, _ in self._of(few)])

    def _of(self, index: ImageIndex) -> Iterator[tuple[Tensor, Tensor]]:
        recipe = self._config.data.view.evaluation()
        batch_size = min(self._batch_size, index.n_live)
        loader = evaluation_loader(index, self._config, recipe, batch_size, self.device)
        expected = 0
        for batch in loader.epoch(0):
            rows_B = rows_of(index, batch.ids)
            assert int(rows_B[0]) == expected, "images come in the order of their ids"
            expected += len(rows_B)
            features_BD = self._represent(batch.views[0].to(self.device)).float()
            if not bool(features_BD.isfinite().all()):
                raise ValueError(
                    f"features of ids {int(batch.ids[0])} to {int(batch.ids[-1])} are NaN or "
                    "infinite: the run's weights have diverged; choose an earlier checkpoint with "
                    "--epoch, or leave out DATA for a page of curves alone"
                )
            yield features_BD, rows_B


class FileFeatures(FeatureStream):
    """Features in files.

    Args:
        project: gives clustered features (B, E) of plain ones; None if they are clustered as they
            are.
        directed: refuse zero vectors, which have no direction.
    """

    def __init__(
        self,
        features: Features,
        *,
        project: Callable[[Tensor], Tensor] | None,
        directed: bool,
        device: torch.device,
    ) -> None:
        self.rows, self.device = features.rows, device
        self.as_they_are = project is None
        self._features, self._project, self._directed = features, project, directed

    def batches(self) -> Iterator[FeatureBatch]:
        start = 0
        for rows_BD in self._features.batches(directed=self._directed):
            plain_BD = torch.tensor(rows_BD, device=self.device)
            clustered_BE = plain_BD if self._project is None else self._project(plain_BD)
            yield FeatureBatch(start=start, plain=plain_BD, clustered=clustered_BE)
            start += len(rows_BD)

    def take(self, rows_M: NDArray[np.int64]) -> Tensor:
        mapped = self._features.mapped
        if mapped is not None:
            found_MD = np.array(mapped[rows_M])
            return torch.tensor(found_MD.astype(float_type(found_MD.dtype)), device=self.device)
        parts = []
        for batch in self.batches():
            at_M = rows_M - batch.start
            at = torch.from_numpy(at_M[(at_M >= 0) & (at_M < len(batch.plain))])
            parts.append(batch.plain[at.to(self.device)])
        return torch.cat(parts)


def projection_of(model: CoKe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A run's projector, from the backbone's features (B, D) to unit vectors (B, E)."""
    projector = model.projector.to(device).eval()

    @torch.no_grad()
    def project(plain_BD: Tensor) -> Tensor:
        return unit(projector(plain_BD.float()))

    return project


class _Both(nn.Module):
    """Features of the backbone and, behind them in the same rows, projected ones."""

    def __init__(self, model: CoKe) -> None:
        super().__init__()
        self.backbone, self.projector = model.backbone, model.projector
        self.width = model.config.dim

    def forward(self, images: Tensor) -> Tensor:
        plain_BD = self.backbone(images)
        return torch.cat([plain_BD.float(), unit(self.projector(plain_BD))], dim=1)
