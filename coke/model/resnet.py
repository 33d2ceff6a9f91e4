"""Residual networks whose state-dict names and shapes are torchvision's, so weights move both ways.

They are written out here because torchvision's CUDA wheel does not import beside a CPU torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEMS = ("imagenet", "small")


def _conv3x3(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and n_in == n_out:
        return None
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(n_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(n_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, as torchvision has it), 1x1."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = width * self.expansion
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(n_in, n_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


#: Blocks of each stage. Depth 8 is 10 without its first stage, which at full resolution takes a
#: third of the time and adds little: for small images on a CPU.
BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    8: (BasicBlock, (0, 1, 1, 1)),
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
DEPTHS = tuple(BLOCKS)


class ResNet(nn.Module):
    """A ResNet without its classifier: images (B, 3, H, W) -> features (B, dim).

    Args:
        depth: 8, 10, 18, 34, 50 or 101.
        width: channels of the first stage; 64 is the standard.
        stem: ``"imagenet"`` (7x7 stride 2, then max pooling) or ``"small"`` (3x3 stride 1, none),
            the usual stem for 32-pixel images.
        expand: channels of a 1x1 convolution before pooling, which gives a narrow network wide
            features at little cost; 0 for none, as in the standard networks.

    Attributes:
        dim: feature dimension.
    """

    def __init__(
        self, *, depth: int = 50, width: int = 64, stem: str = "imagenet", expand: int = 0
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth is {depth}; choose one of {', '.join(map(str, DEPTHS))}")
        if stem not in STEMS:
            raise ValueError(f"stem is {stem!r}; choose one of {', '.join(STEMS)}")
        if width < 8:
            raise ValueError(f"width is {width}; the first stage needs at least 8 channels")
        if expand < 0:
            raise ValueError(f"expand is {expand}; give a number of channels, or 0 for none")
        block, repeats = BLOCKS[depth]
        large = stem == "imagenet"
        self.conv1 = (
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False) if large else _conv3x3(3, width)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.dim = width

        def stage(n_out: int, count: int, stride: int) -> nn.Sequential:
            blocks = []
            for i in range(count):
                blocks.append(block(self.dim, n_out, stride if i == 0 else 1))
                self.dim = n_out * block.expansion
            return nn.Sequential(*blocks)

        self.layer1 = stage(width, repeats[0], stride=1)
        self.layer2 = stage(2 * width, repeats[1], stride=2)
        self.layer3 = stage(4 * width, repeats[2], stride=2)
        self.layer4 = stage(8 * width, repeats[3], stride=2)
        self.expand = nn.Sequential()
        if expand:
            self.expand = nn.Sequential(
                nn.Conv2d(self.dim, expand, 1, bias=False),
                nn.BatchNorm2d(expand),
                nn.ReLU(inplace=True),
            )
            self.dim = expand
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        x = self.expand(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
