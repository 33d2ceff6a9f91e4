"""Backbones by name: ours, and timm's through a stand-in and, where it imports, timm itself."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coke.config.model import ModelConfig
from coke.model.backbone import feature_dim, fixed_image_size
from coke.model.coke_model import build_model, check_view_sizes
from coke.model.resnet import ResNet

CONFIG = ModelConfig(backbone="timm:patches", projector_hidden=16, dim=6)


class PatchEmbedding(nn.Conv2d):
    strict_img_size = True

    def __init__(self, img_size: int) -> None:
        super().__init__(3, 12, 8, stride=8)
        self.img_size = (img_size, img_size)


class Patches(nn.Module):
    """As a transformer of timm: features of ``head_hidden_size``, images of one size."""

    num_features = 10

    def __init__(self, img_size: int = 16) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size)
        self.head_hidden_size = 12

    def forward(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.patch_embed(images)
        return embedded.mean(dim=(2, 3))


class Convolution(nn.Module):
    """As a convolutional network of timm: any size, no ``head_hidden_size``."""

    num_features = 7

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem: Tensor = self.stem(images)
        return stem.mean(dim=(2, 3))


@pytest.fixture
def timm_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """timm with two networks, and what it was asked for."""
    calls: list[dict[str, Any]] = []
    stand_in = ModuleType("timm")

    def create_model(name: str, *, num_classes: int, pretrained: bool, **options: Any) -> nn.Module:
        calls.append({"name": name, "num_classes": num_classes, "pretrained": pretrained})
        if name == "patches":
            return Patches(**options)
        if name == "convolution":
            return Convolution(**options)
        raise RuntimeError(f"Unknown model ({name})")

    stand_in.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    return calls


def test_resnets_need_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails
    net = build_model(ModelConfig(depth=10, width=8, stem="small"), seed=0).backbone
    assert isinstance(net, ResNet) and fixed_image_size(net) == 0


def test_a_network_of_timm_is_asked_for_without_classifier_or_weights(
    timm_calls: list[dict[str, Any]],
) -> None:
    model = build_model(CONFIG, seed=0)
    assert timm_calls == [{"name": "patches", "num_classes": 0, "pretrained": False}]
    assert feature_dim(model.backbone) == 12 and model.projector[0].in_features == 12
    ((projected, _),) = model([torch.zeros(4, 3, 16, 16)])
    assert projected.shape == (4, 6)
    other = build_model(replace(CONFIG, backbone="timm:convolution"), seed=0)
    assert other.projector[0].in_features == 7 and fixed_image_size(other.backbone) == 0


def test_names_and_shapes_stay_timms_and_weights_follow_the_seed(
    timm_calls: list[dict[str, Any]],
) -> None:
    first, same, other = (build_model(CONFIG, seed=s).backbone.state_dict() for s in (1, 1, 2))
    assert first.keys() == Patches().state_dict().keys()
    name = "patch_embed.weight"
    assert torch.equal(first[name], same[name]) and not torch.equal(first[name], other[name])


def test_views_of_another_side_are_refused_where_the_network_has_one(
    timm_calls: list[dict[str, Any]],
) -> None:
    model = build_model(replace(CONFIG, image_size=24), seed=0)
    assert fixed_image_size(model.backbone) == 24
    check_view_sizes(model, {"view.size": 24})
    with pytest.raises(
        ValueError, match=r"evaluation_size is 32, but timm:patches .* side 24 only"
    ):
        check_view_sizes(model, {"view.size": 24, "view.evaluation_size": 32})
    check_view_sizes(build_model(ModelConfig(depth=10, width=8), seed=0), {"view.size": 32})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "swin"}, "backbone is 'swin'; choose 'resnet' (with model.depth), 'vit'"),
        ({"backbone": "timm:"}, "backbone is 'timm:'"),
        ({"image_size": 32}, "image_size is 32 for resnet; it is for transformers"),
        ({"drop_path": 0.1}, "drop_path is 0.1 for resnet; it is for 'vit'"),
        ({"freeze_patches": True}, "freeze_patches is True for resnet; it is for 'vit'"),
        ({"backbone": "timm:patches", "image_size": 4}, "image_size is 4 for timm:patches"),
    ],
)
def test_settings_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig(**options)


def test_an_unknown_network_and_a_size_it_does_not_take_are_named(
    timm_calls: list[dict[str, Any]],
) -> None:
    with pytest.raises(ValueError, match=r"'timm:nothing' .*Unknown model \(nothing\)"):
        build_model(replace(CONFIG, backbone="timm:nothing"), seed=0)
    with pytest.raises(ValueError, match=r"'timm:convolution' with image_size 32: .*img_size"):
        build_model(replace(CONFIG, backbone="timm:convolution", image_size=32), seed=0)


@pytest.mark.parametrize(
    ("version", "cuda", "platform", "command"),
    [
        ("2.13.0+cpu", None, "linux", "torch==2.13.0+cpu --index-url .*/whl/cpu"),
        ("2.13.0+cu130", "13.0", "linux", "torch==2.13.0+cu130 --index-url .*/whl/cu130"),
        ("2.13.0", None, "linux", "torch==2.13.0 --index-url .*/whl/cpu"),
        ("2.13.0", "13.0", "linux", "torch==2.13.0"),
        ("2.14.0a0+git1", "13.0", "linux", r"torch==2.14.0a0\+git1"),
        ("2.13.0", None, "darwin", "torch==2.13.0"),
    ],
)
def test_without_timm_the_commands_fit_the_torch_that_is_there(
    monkeypatch: pytest.MonkeyPatch, version: str, cuda: str | None, platform: str, command: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "timm", None)
    expected = (
        rf"timm is not installed; `pip install torchvision {command.replace('0+c', '0.c')}`, then"
    )
    with pytest.raises(ValueError, match=expected):
        build_model(CONFIG, seed=0)


def test_a_torchvision_of_another_torch_is_not_answered_with_the_command_that_brought_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "timm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n", encoding="utf-8"
    )
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"nms .*pip uninstall -y torchvision`, then `pip"
    ) as found:
        build_model(CONFIG, seed=0)
    assert "coke[timm]" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "image_size", "dim", "fixed"),
    [("vit_tiny_patch16_224", 32, 192, 32), ("mobilenetv3_small_050", 0, 1024, 0)],
)
def test_timm_itself(name: str, image_size: int, dim: int, fixed: int) -> None:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that fits torch
        pytest.skip(f"needs coke[timm]: {error}")
    model = build_model(ModelConfig(backbone=f"timm:{name}", image_size=image_size), seed=0)
    net = model.backbone.eval()
    assert (feature_dim(net), fixed_image_size(net)) == (dim, fixed)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, dim)
    options = {"img_size": image_size} if image_size else {}
    theirs = timm.create_model(name, num_classes=0, **options).state_dict()
    shapes = [{n: t.shape for n, t in state.items()} for state in (net.state_dict(), theirs)]
    assert shapes[0] == shapes[1]
