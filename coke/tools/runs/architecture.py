"""Which network weights are of, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from coke.config.model import VIT_PATCHES
from coke.model.resnet import DEPTHS
from coke.model.vit import SIZES

_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight")
_VIT_BLOCK = re.compile(r"blocks\.(\d+)\.attn\.qkv\.weight")
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


@dataclass(frozen=True, kw_only=True)
class ViTShape:
    """What shapes tell of a vision transformer with timm's names.

    Attributes:
        width, depth: of a token, and the number of blocks.
        patch: side of a patch in pixels.
        size: name of a standard size with this width and depth; empty for another network, such as
            one whose layers are scaled.
    """

    width: int
    depth: int
    patch: int
    size: str

    @property
    def name(self) -> str:
        """The network in words."""
        if self.size:
            return f"ViT-{self.size}/{self.patch}"
        return f"ViT of {self.depth} blocks, width {self.width}, patch {self.patch}"

    @property
    def settings(self) -> str:
        """The options that give this network; empty where none do."""
        if not self.size or self.patch not in VIT_PATCHES:
            return ""
        return (
            f"--set model.backbone=vit --set model.size={self.size} --set model.patch={self.patch}"
        )


def vit_of(shapes: Mapping[str, tuple[int, ...]]) -> ViTShape | None:
    """The vision transformer that has tensors of these names and shapes; None where it is none."""
    blocks = [int(match[1]) for name in shapes if (match := _VIT_BLOCK.fullmatch(name))]
    patches = shapes.get("patch_embed.proj.weight", ())
    if not blocks or len(patches) != 4 or "cls_token" not in shapes:
        return None
    depth, width = 1 + max(blocks), patches[0]
    plain = "blocks.0.ls1.gamma" not in shapes and "reg_token" not in shapes
    sizes = [name for name, (w, d, _) in SIZES.items() if (w, d) == (width, depth) and plain]
    return ViTShape(width=width, depth=depth, patch=patches[-1], size=sizes[0] if sizes else "")


def network_of(shapes: Mapping[str, tuple[int, ...]]) -> ResNetShape | ViTShape | None:
    """The ResNet or vision transformer of these names and shapes; None for any other network."""
    return resnet_of(shapes) or vit_of(shapes)
