"""Our ResNet by the names of ``ResNetModel`` of transformers."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from coke.config.model import ModelConfig
from coke.model.resnet import ResNet
from coke.tools.export.formats.resnet_names import expansion

_STEM = re.compile(r"(conv|bn)1\.(\w+)")
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(\w+)")


def differences(model: ModelConfig) -> list[str]:
    """What keeps a ResNet from being a ``ResNetModel``: it has one stem, and a block or more in
    each of its stages. Any width fits.
    """
    found = []
    if model.stem != "imagenet":
        found.append("it has the small stem (model.stem), and theirs is 7x7 with max pooling")
    if model.depth == 8:
        found.append("its depth is 8, with no block in its first stage")
    if model.expand:
        found.append(expansion(model))
    return found


def config_of(backbone: ResNet) -> dict[str, Any]:
    """Settings of the ``ResNetModel`` of the same shape."""
    stages = [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]
    width = backbone.bn1.num_features
    bottleneck = hasattr(backbone.layer1[0], "conv3")
    return {
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": width,
        "hidden_sizes": [width * 2**i * (4 if bottleneck else 1) for i in range(4)],
        "depths": [len(stage) for stage in stages],
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,  # the stride is the 3x3 convolution's, as torchvision's
    }


def tensors_of(backbone: ResNet) -> dict[str, Tensor]:
    """The state dict of ``ResNetModel``."""
    return {name_of(name): value for name, value in backbone.state_dict().items()}


def name_of(ours: str) -> str:
    """``layer1.1.conv3.weight`` is ``encoder.stages.0.layers.1.layer.2.convolution.weight``."""
    if stem := _STEM.fullmatch(ours):
        return f"embedder.embedder.{_kind(stem[1] == 'conv')}.{stem[2]}"
    block = _BLOCK.fullmatch(ours)
    assert block is not None, ours
    start = f"encoder.stages.{int(block[1]) - 1}.layers.{block[2]}"
    if block[5] is not None:
        return f"{start}.shortcut.{_kind(block[5] == '0')}.{block[6]}"
    return f"{start}.layer.{int(block[4]) - 1}.{_kind(block[3] == 'conv')}.{block[6]}"


def _kind(convolution: bool) -> str:
    return "convolution" if convolution else "normalization"
