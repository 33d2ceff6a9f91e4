"""Which ResNet weights are of, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from coke.model.resnet import DEPTHS

_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")
_STEMS = {7: "imagenet", 3: "small"}  # by the side of the first kernel


@dataclass(frozen=True, kw_only=True)
class ResNetShape:
    """What shapes tell of a ResNet.

    Attributes:
        depth: layers with weights, as in ResNet-50.
        width: channels of the stem.
        stem: ``"imagenet"``, ``"small"``, or empty for another, such as one of three layers.
        standard: whether bottlenecks are as narrow as in the paper, and convolutions ungrouped.
    """

    depth: int
    width: int
    stem: str
    standard: bool

    @property
    def name(self) -> str:
        """The network in words."""
        kind = "" if self.standard else ", with wider or grouped bottlenecks"
        stem = "" if self.stem else ", with another stem"
        return f"ResNet-{self.depth} of width {self.width}{kind}{stem}"

    @property
    def settings(self) -> str:
        """The options that give this network; empty where none do."""
        if self.depth not in DEPTHS or not self.standard or not self.stem:
            return ""
        return (
            f"--set model.depth={self.depth} --set model.width={self.width} "
            f"--set model.stem={self.stem}"
        )


def resnet_of(shapes: Mapping[str, tuple[int, ...]]) -> ResNetShape | None:
    """The ResNet that has tensors of these names and shapes; None where it is none."""
    blocks = [match for name in shapes if (match := _BLOCK.fullmatch(name))]
    norm = shapes.get("bn1.weight")
    if not blocks or norm is None:
        return None
    first = f"layer{blocks[0][1]}.{blocks[0][2]}"
    bottleneck = f"{first}.conv3.weight" in shapes
    middle = shapes.get(f"{first}.conv2.weight", ())
    width, stage = norm[0], int(blocks[0][1])
    stem = shapes.get("conv1.weight", ())
    return ResNetShape(
        depth=len(blocks) * (3 if bottleneck else 2) + 2,
        width=width,
        stem=_STEMS.get(stem[-1], "") if len(stem) == 4 else "",
        standard=middle[:2] == (width * 2 ** (stage - 1),) * 2,
    )
