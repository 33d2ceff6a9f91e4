"""What formats of graphs record: a network, an example of its input, and which sizes may change."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer
from coke.tools.export.formats.vit_at_size import vit_at_size
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork

#: Names of a graph's input and output.
IMAGES, FEATURES, SCORES = "images", "features", "scores"
_EXAMPLES = 2  # a batch of one would be recorded as the only size that goes


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A network to be recorded.

    Attributes:
        net: (B, 3, H, W) float32, or pixels (B, H, W, 3) uint8, -> features (B, D) or scores.
        images: an example.
        sizes: names of the axes of images whose sizes may change.
    """

    net: nn.Module
    images: Tensor
    sizes: dict[int, str]


def recording(network: TrainedNetwork, settings: ExportSettings) -> Recording:
    """What to record. Batches have any size. Images have any size for a ResNet; for others that of
    evaluations.
    """
    size = network.preprocessing.size
    net, images, sides = network.backbone, torch.zeros(_EXAMPLES, 3, size, size), (2, 3)
    if isinstance(net, VisionTransformer):
        net = vit_at_size(net, size)
    if network.head is not None:
        net = nn.Sequential(net, network.head)
    if settings.with_preprocessing:
        net, sides = FromPixels(net, network.preprocessing), (1, 2)
        images = torch.zeros(_EXAMPLES, size, size, 3, dtype=torch.uint8)
    sizes = {0: "batch"}
    if takes_any_size(network):
        sizes |= {sides[0]: "height", sides[1]: "width"}
    return Recording(net=net.eval(), images=images, sizes=sizes)


def output_name(network: TrainedNetwork) -> str:
    """Name of what a graph gives."""
    return FEATURES if network.head is None else SCORES


def remarks(network: TrainedNetwork, settings: ExportSettings) -> list[str]:
    """What a model card says of a graph's input."""
    size = network.preprocessing.size
    sides = "any height and width" if takes_any_size(network) else f"{size} x {size} pixels only"
    layout, steps = "(batch, 3, height, width) float32, after the pre-processing above", ""
    if settings.with_preprocessing:
        layout = "(batch, height, width, 3) uint8 in RGB"
        steps = " Steps 2 and 3 of the pre-processing are inside; do step 1 alone."
    return [f"`{IMAGES}` is {layout}: any number of images, {sides}.{steps}"]


def takes_any_size(network: TrainedNetwork) -> bool:
    """Whether the graph takes images of any size."""
    return isinstance(network.backbone, ResNet)


class FromPixels(nn.Module):
    """Pixels (B, H, W, 3) uint8, RGB -> what a network gives for them, normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(preprocessing.mean))
        self.register_buffer("std", torch.tensor(preprocessing.std))

    def forward(self, pixels: Tensor) -> Tensor:
        views_BHWC = (pixels.float() / 255 - self.mean) / self.std
        features_BD: Tensor = self.network(views_BHWC.permute(0, 3, 1, 2))
        return features_BD


def about(network: TrainedNetwork, settings: ExportSettings) -> dict[str, str]:
    """What a file says of itself. ``preprocessing`` is JSON; its ``inside`` names the steps that
    the graph does. ``classes`` is a JSON list, by label.
    """
    inside = ["scale", "normalise"] if settings.with_preprocessing else []
    classes = {} if network.head is None else {"classes": json.dumps(network.classes)}
    return {
        **classes,
        "preprocessing": json.dumps({**network.preprocessing.record(), "inside": inside}),
        "network": network.config.model.network,
        "epoch": str(network.epoch),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the warnings that torch gives about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
