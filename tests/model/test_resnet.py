"""Names and shapes are torchvision's, so weights move both ways."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
import torch

from coke.model.resnet import ResNet

#: depth -> parameters without fc, state-dict entries, sha256 of torchvision's sorted
#: "name [shape]" lines without fc (torchvision 0.29).
TORCHVISION = {
    18: (
        11_176_512,
        120,
        "05d62c7320b26c5422008c31e78d980dd19cda142e200703120c1b31133beeda",
    ),
    34: (
        21_284_672,
        216,
        "adc7641db1c67d20cd8415be7982c5ac292f91da89d804da7391b725076356cc",
    ),
    50: (
        23_508_032,
        318,
        "569b8747885996c670bdc8beff44c0b72350a137c27520435d25397acd0dd3dd",
    ),
    101: (
        42_500_160,
        624,
        "ee737dbd57ccac53b3b86bc3c86b80dcc0cf6bbccd06d24cff8e1331f1d7b2c2",
    ),
}


@pytest.mark.parametrize("depth", TORCHVISION)
def test_state_dict_is_torchvisions(depth: int) -> None:
    parameters, entries, digest = TORCHVISION[depth]
    with torch.device("meta"):
        net = ResNet(depth=depth)
    assert sum(p.numel() for p in net.parameters()) == parameters
    shapes = {name: list(t.shape) for name, t in net.state_dict().items()}
    assert len(shapes) == entries
    lines = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("depth", "spots"),
    [
        (
            18,
            {
                "conv1.weight": [64, 3, 7, 7],
                "bn1.num_batches_tracked": [],
                "layer1.1.conv2.weight": [64, 64, 3, 3],
                "layer2.0.downsample.0.weight": [128, 64, 1, 1],
                "layer2.0.downsample.1.running_mean": [128],
                "layer4.1.bn2.bias": [512],
            },
        ),
        (
            50,
            {
                "layer1.0.conv1.weight": [64, 64, 1, 1],
                "layer1.0.downsample.0.weight": [256, 64, 1, 1],
                "layer2.0.conv2.weight": [128, 128, 3, 3],
                "layer3.5.conv3.weight": [1024, 256, 1, 1],
                "layer4.2.bn3.running_var": [2048],
            },
        ),
    ],
)
def test_spot_names(depth: int, spots: dict[str, list[int]]) -> None:
    with torch.device("meta"):
        state = ResNet(depth=depth).state_dict()
    for name, shape in spots.items():
        assert list(state[name].shape) == shape
    assert "layer1.0.downsample.0.weight" not in state or depth == 50  # 64 -> 64 needs none


@pytest.mark.parametrize(
    ("options", "dim"),
    [
        ({"depth": 10, "width": 8}, 64),
        ({"depth": 18, "width": 8}, 64),
        ({"depth": 34, "width": 8}, 64),
        ({"depth": 50, "width": 8}, 256),
        ({"depth": 10, "width": 16, "stem": "small"}, 128),
        ({"depth": 8, "width": 16, "stem": "small"}, 128),
        ({"depth": 8, "width": 16, "stem": "small", "expand": 96}, 96),
    ],
)
def test_output_dimensions(options: dict[str, Any], dim: int) -> None:
    net = ResNet(**options).eval()
    assert net.dim == dim
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 40, 33)).shape == (2, dim)


def test_standard_dimensions() -> None:
    with torch.device("meta"):
        dims = {depth: ResNet(depth=depth).dim for depth in (18, 50, 101)}
    assert dims == {18: 512, 50: 2048, 101: 2048}


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 2), ("small", 8)])
def test_stride_of_the_stems(stem: str, side: int) -> None:
    """The last feature map of a 64-pixel image: 1/32 of it, or 1/8 with the small stem."""
    net = ResNet(depth=10, width=8, stem=stem).eval()
    shapes: list[torch.Size] = []
    net.get_submodule("layer4").register_forward_hook(lambda m, i, o: shapes.append(o.shape))
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    assert list(shapes[0]) == [1, 64, side, side]


def test_depth_8_is_10_without_its_first_stage() -> None:
    with torch.device("meta"):
        eight = ResNet(depth=8, width=16, stem="small").state_dict()
        ten = ResNet(depth=10, width=16, stem="small").state_dict()
    assert {name: t.shape for name, t in eight.items()} == {
        name: t.shape for name, t in ten.items() if not name.startswith("layer1.")
    }


def test_expand_widens_the_features_before_pooling() -> None:
    net = ResNet(depth=8, width=16, stem="small", expand=96).eval()
    maps: list[torch.Tensor] = []
    net.expand.register_forward_hook(lambda m, i, o: maps.append(o))
    with torch.no_grad():
        features_BD = net(torch.randn(2, 3, 32, 32))
    assert maps[0].shape == (2, 96, 4, 4) and (maps[0] >= 0).all()
    torch.testing.assert_close(features_BD, maps[0].mean(dim=(2, 3)))


def test_features_are_averages_over_relus() -> None:
    torch.manual_seed(0)
    net = ResNet(depth=10, width=8).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        whole = net(x)
        assert (whole >= 0).all() and (whole > 0).any()
        torch.testing.assert_close(net(x[1:2]), whole[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth is 20; choose one of 8, 10, 18, 34, 50, 101"),
        ({"stem": "tiny"}, "stem is 'tiny'; choose one of imagenet, small"),
        ({"width": 4}, "width is 4"),
        ({"expand": -1}, "expand is -1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ResNet(**options)


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_weights_give_torchvisions_features(depth: int) -> None:
    try:
        from torchvision import models
    except (
        ImportError,
        RuntimeError,
    ) as error:  # its CUDA wheel does not import beside a CPU torch
        pytest.skip(f"needs a torchvision that imports: {error}")
    theirs = getattr(models, f"resnet{depth}")().eval()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(depth=depth).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
