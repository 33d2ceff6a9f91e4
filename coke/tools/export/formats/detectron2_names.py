"""The names that detectron2 gives to the tensors of a ResNet.

detectron2 counts stages from the stem, so that ``layer1`` is ``res2``, and a convolution owns the
normalisation behind it: ``layer1.0.bn3.bias`` is ``res2.0.conv3.norm.bias``. A detector has the
backbone below ``backbone.`` (C4) or ``backbone.bottom_up.`` (FPN), and a C4 detector has ``res5``
below ``roi_heads.``. Its reader finds a tensor by the end of its name, so one file serves all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from coke.config.model import RESNET, ModelConfig

T = TypeVar("T")

#: Depths that detectron2 has too. It has one of 152 as well, and we have no such network.
DEPTHS = (18, 34, 50, 101)
_BOTTLENECKS = (50, 101)
_WIDTH = 64  # channels of the first stage in detectron2's defaults
#: Layers behind the last stage, which a detector has no place for.
_EXPANSION = "expand."

_NAME = re.compile(
    r"(?:layer(?P<stage>[1-4])\.(?P<block>\d+)\.)?"
    r"(?:(?P<kind>conv|bn)(?P<number>[1-3])|downsample\.(?P<shortcut>[01]))\.(?P<last>\w+)"
)


def by_detectron2_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of our ResNet by detectron2's names, in the same order.

    Args:
        tensors: by name of :class:`coke.model.resnet.ResNet`, which are torchvision's. Those of
            the expansion are left out.
    """
    return {
        detectron2_name(name): value
        for name, value in tensors.items()
        if not name.startswith(_EXPANSION)
    }


def detectron2_name(name: str) -> str:
    """``layer4.0.downsample.1.weight`` is ``res5.0.shortcut.norm.weight``."""
    found = _NAME.fullmatch(name)
    assert found is not None, f"{name} is no tensor of a ResNet"
    place = f"res{int(found['stage']) + 1}.{found['block']}" if found["stage"] else "stem"
    if found["shortcut"]:
        layer, is_norm = "shortcut", found["shortcut"] == "1"
    else:
        layer, is_norm = f"conv{found['number']}", found["kind"] == "bn"
    return ".".join([place, layer, *(["norm"] if is_norm else []), found["last"]])


def left_out(tensors: Mapping[str, object]) -> list[str]:
    """Names of the tensors that :func:`by_detectron2_names` leaves out."""
    return [name for name in tensors if name.startswith(_EXPANSION)]


def detectron2_differences(model: ModelConfig) -> list[str]:
    """What keeps a network from being a ResNet of detectron2; empty if it is one."""
    if model.backbone != RESNET:
        return [f"it is a {model.backbone}"]
    found = []
    if model.depth not in DEPTHS:
        found.append(f"its depth is {model.depth}, not one of {', '.join(map(str, DEPTHS))}")
    if model.stem != "imagenet":
        found.append(f"its stem is {model.stem!r}, not 'imagenet'")
    if model.width != _WIDTH and model.depth not in _BOTTLENECKS:
        found.append(f"its width is {model.width}, not {_WIDTH}")
    return found


def detectron2_settings(
    model: ModelConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, object]:
    """What a detector's config must say for the weights, where detectron2's defaults differ.

    Args:
        mean, std: of the views, per channel, red first, in the scale 0..1.

    Returns: values by the setting's full name; tuples are lists.
    """
    bottleneck = model.depth in _BOTTLENECKS
    found: dict[str, object] = {
        "MODEL.PIXEL_MEAN": _of_bytes(mean),
        "MODEL.PIXEL_STD": _of_bytes(std),
        "INPUT.FORMAT": "RGB",
        "MODEL.RESNETS.DEPTH": model.depth,
    }
    if bottleneck:
        found["MODEL.RESNETS.STRIDE_IN_1X1"] = False
    if model.width != _WIDTH:
        found["MODEL.RESNETS.STEM_OUT_CHANNELS"] = model.width
        found["MODEL.RESNETS.WIDTH_PER_GROUP"] = model.width
    if model.width != _WIDTH or not bottleneck:
        found["MODEL.RESNETS.RES2_OUT_CHANNELS"] = model.width * (4 if bottleneck else 1)
    return found


def _of_bytes(values: tuple[float, ...]) -> list[float]:
    """For pixels in 0..255, without the digits that binary fractions add."""
    return [round(255 * value, 6) for value in values]
