"""A network is told from names and shapes."""

from __future__ import annotations

import pytest
import torch

from coke.model.resnet import ResNet
from coke.model.vit import VisionTransformer
from coke.tools.runs.architecture import network_of, resnet_of, vit_of


@pytest.mark.parametrize("depth", [8, 10, 18, 34, 50, 101])
@pytest.mark.parametrize(("width", "stem"), [(8, "imagenet"), (16, "small")])
def test_depth_width_and_stem(depth: int, width: int, stem: str) -> None:
    net = ResNet(depth=depth, width=width, stem=stem)
    found = resnet_of({name: tuple(v.shape) for name, v in net.state_dict().items()})
    assert found is not None and found.name == f"ResNet-{depth} of width {width}"
    assert found.settings == (
        f"--set model.depth={depth} --set model.width={width} --set model.stem={stem}"
    )


def test_networks_that_no_setting_gives() -> None:
    shapes = {n: tuple(v.shape) for n, v in ResNet(depth=50, width=8).state_dict().items()}
    wide = shapes | {"layer1.0.conv2.weight": (16, 16, 3, 3)}
    found = resnet_of(wide)
    assert found is not None and found.settings == "" and "wider or grouped" in found.name
    deep_stem = {n: shape for n, shape in shapes.items() if n != "conv1.weight"}
    found = resnet_of(deep_stem | {"conv1.0.weight": (8, 3, 3, 3)})
    assert found is not None and found.settings == "" and "another stem" in found.name
    longer = shapes | {f"layer3.{i}.conv1.weight": (32, 128, 1, 1) for i in range(6, 36)}
    longer |= {"layer2.4.conv1.weight": (1, 1, 1, 1), "layer2.5.conv1.weight": (1, 1, 1, 1)}
    longer |= {"layer2.6.conv1.weight": (1, 1, 1, 1), "layer2.7.conv1.weight": (1, 1, 1, 1)}
    found = resnet_of(longer)
    assert found is not None and found.name == "ResNet-152 of width 8" and found.settings == ""
    assert resnet_of({"blocks.0.attn.qkv.weight": (9, 3)}) is None


@pytest.mark.parametrize(("size", "patch"), [("tiny", 16), ("small", 8), ("base", 14)])
def test_size_and_patch_of_a_vit(size: str, patch: int) -> None:
    with torch.device("meta"):
        net = VisionTransformer(size=size, patch=patch, image_size=4 * patch)
    shapes = {name: tuple(v.shape) for name, v in net.state_dict().items()}
    found = network_of(shapes)
    assert found is not None and found.name == f"ViT-{size}/{patch}"
    assert found.settings == (
        f"--set model.backbone=vit --set model.size={size} --set model.patch={patch}"
    )
    shallow = vit_of({n: s for n, s in shapes.items() if not n.startswith("blocks.11.")})
    assert shallow is not None and shallow.settings == "" and "ViT of 11 blocks" in shallow.name
    scaled = vit_of(shapes | {"blocks.0.ls1.gamma": (net.dim,)})
    assert scaled is not None and scaled.settings == "", "DINOv2 scales layers, ours does not"
    assert network_of({"stem.weight": (3, 3)}) is None
