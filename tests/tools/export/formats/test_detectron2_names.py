"""Every name and shape that the detectors of docs/detection load, against recorded ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from coke.config.model import ModelConfig
from coke.config.view_recipe import ViewRecipe
from coke.model.resnet import ResNet
from coke.tools.export.formats.detectron2_names import (
    by_detectron2_names,
    detectron2_differences,
    detectron2_name,
    detectron2_settings,
    left_out,
)

ROOT = Path(__file__).parents[4]
CONFIGS = ROOT / "docs" / "detection"
RECORDED = json.loads((ROOT / "tests/golden/detectron2.json").read_text(encoding="utf-8"))
DETECTORS = sorted(RECORDED["detectors"])
#: Where a detector has the pre-trained layers. Behind res5, a C4 detector has a new norm.
PRETRAINED = ("backbone.stem.", "backbone.res", "backbone.bottom_up.", "roi_heads.res5.")
NEW = "roi_heads.res5.norm."


@cache
def exported(depth: int = 50, expand: int = 0) -> dict[str, list[int]]:
    """Shapes by name of what the format writes."""
    tensors = by_detectron2_names(ResNet(depth=depth, expand=expand).state_dict())
    return {name: list(value.shape) for name, value in tensors.items()}


def config_of(detector: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{detector}.yaml").read_text("utf-8"))
    return found


def flat(settings: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{where}{key}.")
        else:
            yield where + key, value


def found_by_detectron2(name: str, saved: Mapping[str, object]) -> str | None:
    """The name in the file that detectron2 takes for one of the model: the longest of those that
    the model's name is, or ends with behind a dot.
    """
    fits = [other for other in saved if name == other or name.endswith("." + other)]
    return max(fits, key=len, default=None)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer2.1.bn2.num_batches_tracked", "res3.1.conv2.norm.num_batches_tracked"),
        ("layer3.22.bn3.bias", "res4.22.conv3.norm.bias"),
        ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
        ("layer4.0.downsample.1.running_var", "res5.0.shortcut.norm.running_var"),
    ],
)
def test_names_by_hand(ours: str, theirs: str) -> None:
    assert detectron2_name(ours) == theirs


@pytest.mark.parametrize("name", ["fc.weight", "layer5.0.conv1.weight", "layer1.0.conv4.weight"])
def test_no_name_is_guessed(name: str) -> None:
    with pytest.raises(AssertionError, match="is no tensor of a ResNet"):
        detectron2_name(name)


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS)
def test_every_pretrained_tensor_of_a_detector_is_in_the_file_with_its_shape(detector: str) -> None:
    shapes, saved = RECORDED["detectors"][detector]["shapes"], exported()
    taken: dict[str, str] = {}
    for name, shape in shapes.items():
        ours = found_by_detectron2(name, saved)
        if name.startswith(PRETRAINED) and not name.startswith(NEW):
            assert ours is not None, f"{name} would stay random"
            assert saved[ours] == shape, name
            assert ours not in taken, f"{name} and {taken[ours]} take the same"
            taken[ours] = name
        else:
            assert ours is None, f"{name} is new, and would be taken from {ours}"
    assert taken.keys() == saved.keys()  # nothing is left over


def test_the_recorded_detectors_are_those_of_the_configs() -> None:
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == DETECTORS
    c4, fpn = (RECORDED["detectors"][name]["shapes"] for name in reversed(DETECTORS))
    assert c4["roi_heads.res5.norm.weight"] == [2048]
    assert c4["roi_heads.box_predictor.cls_score.weight"] == [21, 2048]
    assert fpn["backbone.fpn_lateral2.norm.weight"] == [256]
    assert fpn["roi_heads.mask_head.predictor.weight"] == [80, 256, 1, 1]


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_names_were_recorded_with_the_settings_that_the_config_has(detector: str) -> None:
    recorded = RECORDED["detectors"][detector]["settings"]
    assert {key: value for key, value in flat(config_of(detector)) if key in recorded} == recorded


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_config_has_no_setting_that_detectron2_has_not(detector: str) -> None:
    unknown = {key for key, _ in flat(config_of(detector))} - set(RECORDED["settings"])
    assert unknown == set()


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_config_agrees_with_the_networks_of_the_imagenet_presets(detector: str) -> None:
    view = ViewRecipe()
    needed = detectron2_settings(ModelConfig(), view.mean, view.std)
    assert needed == {
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "INPUT.FORMAT": "RGB",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }
    given = dict(flat(config_of(detector)))
    assert {key: given[key] for key in needed} == needed


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        # Appendix B.4, and the settings of MoCo that it takes.
        (
            "voc_faster_rcnn_r50_c4",
            {"STEPS": [18000, 22000], "MAX_ITER": 24000, "WARMUP_ITERS": 100},
        ),
        (
            "coco_mask_rcnn_r50_fpn_1x",
            {"STEPS": [60000, 80000], "MAX_ITER": 90000, "WARMUP_ITERS": 1000},
        ),
    ],
)
def test_the_schedules_are_the_papers(detector: str, expected: dict[str, Any]) -> None:
    solver = config_of(detector)["SOLVER"]
    expected = {**expected, "IMS_PER_BATCH": 16, "WEIGHT_DECAY": 1e-4, "MOMENTUM": 0.9}
    assert {key: solver[key] for key in expected} == expected


def test_networks_that_detectron2_has_by_other_settings() -> None:
    black = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    wide = detectron2_settings(ModelConfig(depth=101, width=128), *black)
    assert wide["MODEL.RESNETS.STEM_OUT_CHANNELS"] == 128
    assert wide["MODEL.RESNETS.WIDTH_PER_GROUP"] == 128
    assert wide["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 512
    small = detectron2_settings(ModelConfig(depth=18), *black)
    assert small["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 64
    assert "MODEL.RESNETS.STRIDE_IN_1X1" not in small  # its blocks have no 1x1 convolution


def test_networks_that_detectron2_has_not() -> None:
    assert detectron2_differences(ModelConfig()) == []
    assert detectron2_differences(ModelConfig(backbone="timm:vit_tiny")) == [
        "it is a timm:vit_tiny"
    ]
    assert detectron2_differences(ModelConfig(depth=8, stem="small", width=16)) == [
        "its depth is 8, not one of 18, 34, 50, 101",
        "its stem is 'small', not 'imagenet'",
        "its width is 16, not 64",
    ]
    assert detectron2_differences(ModelConfig(depth=50, width=16)) == []


@pytest.mark.slow
def test_the_expansion_is_left_out() -> None:
    names = left_out(ResNet(depth=18, expand=96).state_dict())
    assert "expand.0.weight" in names and len(names) == 6
    assert exported(18, expand=96) == exported(18)
