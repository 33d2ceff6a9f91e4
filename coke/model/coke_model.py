"""The network of CoKe: backbone, projector, and optionally a predictor (App. B.2.4, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coke.config.model import ModelConfig
from coke.model.backbone import build_backbone, feature_dim, fixed_image_size
from coke.model.loss import ViewFeatures


class CoKe(nn.Module):
    """Views (B, 3, S, S) -> unit-norm features (B, D) float32 after projector and predictor.

    Attributes:
        represented: the backbone's features of the first view of the last call, detached, in the
            precision of that call; None before any call. Training measures their rank.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.represented: Tensor | None = None
        self.backbone = build_backbone(config)
        widths = [config.projector_hidden] * (config.projector_layers - 1) + [config.dim]
        self.projector = _mlp(
            feature_dim(self.backbone), widths, last_norm=config.projector_last_norm
        )
        self.predictor = (
            _mlp(config.dim, [config.predictor_hidden, config.dim], last_norm=False)
            if config.predictor_hidden
            else None
        )

    def forward(self, views: Sequence[Tensor]) -> list[ViewFeatures]:
        """Per view the projected features, which are clustered, and the predicted features (None
        without a predictor).

        DistributedDataParallel needs one call for all views of a step. Each view is a pass of its
        own: batch norm takes the statistics of one view at a time, as in the release.
        """
        found: list[ViewFeatures] = []
        for images in views:
            represented_BD = self.backbone(images)
            if not found:
                self.represented = represented_BD.detach()
            found.append(self._features(represented_BD))
        return found

    def _features(self, represented_BD: Tensor) -> ViewFeatures:
        projected_BD = self.projector(represented_BD)
        predicted_BD = None if self.predictor is None else self.predictor(projected_BD)
        return unit(projected_BD), None if predicted_BD is None else unit(predicted_BD)


def check_view_sizes(model: CoKe, sizes: Mapping[str, int]) -> None:
    """Refuses views that the backbone cannot take.

    Args:
        sizes: side in pixels by the name of the setting it comes from.

    Raises:
        ValueError: a side differs from the one that a transformer of timm was built for, or is no
            multiple of a ViT's patch.
    """
    fixed, multiple = fixed_image_size(model.backbone), model.config.side_multiple
    for name, size in sizes.items():
        if size % multiple:
            below = size // multiple * multiple
            near = [str(side) for side in (below, below + multiple) if side]
            raise ValueError(
                f"{name} is {size}, but {model.config.network} takes sides that are multiples of "
                f"its patch of {multiple} pixels: set {name} to {' or '.join(near)}"
            )
        if fixed and size != fixed:
            raise ValueError(
                f"{name} is {size}, but {model.config.network} was built for images of side "
                f"{fixed} only, in training and in evaluation: set {name} to it, or "
                "model.image_size to another"
            )


def unit(features_BD: Tensor) -> Tensor:
    """Features scaled to unit norm, in float32 whatever the autocast (the paper's |x| = 1)."""
    return F.normalize(features_BD.float(), dim=1)


def _mlp(n_in: int, widths: list[int], *, last_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        last = i == len(widths) - 1
        normed = not last or last_norm
        layers.append(nn.Linear(n_in, width, bias=not normed))
        if normed:
            layers.append(nn.BatchNorm1d(width))
        if not last:
            layers.append(nn.ReLU(inplace=True))
        n_in = width
    return nn.Sequential(*layers)


def build_model(config: ModelConfig, seed: int) -> CoKe:
    """A freshly initialised model; the same weights for the same seed, whatever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CoKe(config)
