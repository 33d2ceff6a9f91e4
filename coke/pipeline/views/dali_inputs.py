"""The drawn numbers of a batch, as the DALI graph reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.views.draw import ViewParameters


def graph_inputs(
    recipes: Sequence[ViewRecipe], parameters: Sequence[ViewParameters], on_gpu: bool
) -> dict[str, NDArray[Any]]:
    """All inputs of the graph but the encoded images, by name."""
    inputs = _whole_image_inputs(parameters) if on_gpu else _region_inputs(parameters)
    for v, drawn in enumerate(parameters):
        colours = _stage_inputs(drawn, recipes[v])
        inputs |= {f"{name}_{v}": value for name, value in colours.items()}
    return inputs


def _whole_image_inputs(parameters: Sequence[ViewParameters]) -> dict[str, NDArray[Any]]:
    inputs: dict[str, NDArray[Any]] = {}
    for v, p in enumerate(parameters):
        inputs[f"anchor_{v}"] = np.stack([p.top, p.left], axis=1)
        inputs[f"shape_{v}"] = np.stack([p.height, p.width], axis=1)
    return inputs


def _region_inputs(parameters: Sequence[ViewParameters]) -> dict[str, NDArray[Any]]:
    """Crops (top, left), relative to the smallest region that holds all of them.

    The decoder skips what lies outside the region. One view's crop is the region itself.
    """
    crops = _whole_image_inputs(parameters)
    anchors = [crops[f"anchor_{v}"] for v in range(len(parameters))]
    ends = [crops[f"anchor_{v}"] + crops[f"shape_{v}"] for v in range(len(parameters))]
    start = np.minimum.reduce(anchors)
    region = {"region_anchor": start, "region_shape": np.maximum.reduce(ends) - start}
    if len(parameters) == 1:
        return region
    return crops | region | {f"anchor_{v}": a - start for v, a in enumerate(anchors)}


def _stage_inputs(drawn: ViewParameters, recipe: ViewRecipe) -> dict[str, NDArray[Any]]:
    """Inputs of the stages of one view; the graph has only the stages that the recipe may draw."""
    inputs: dict[str, NDArray[Any]] = {"flip": drawn.flip}
    stages = recipe.may_draw
    if "lighting" in stages:
        inputs |= {"brightness": drawn.brightness, "contrast": drawn.contrast}
    if "colours" in stages:
        inputs |= {"saturation": drawn.saturation} | _hue_inputs(drawn, recipe.exact_hue)
    if "blur" in stages:
        inputs["blur_sigma"] = drawn.blur_sigma
    if "solarize" in stages:
        inputs["solarize"] = drawn.solarize.astype(np.bool_)
    return inputs


def _hue_inputs(drawn: ViewParameters, exact: bool) -> dict[str, NDArray[Any]]:
    if not exact:
        return {"hue": drawn.hue_degrees}
    sixths = drawn.hue_degrees.astype(np.float64) / 60
    thirds = np.rint(sixths / 2)
    turn = sixths - 2 * thirds  # in [-1, 1]; negative is backwards
    channels = (np.array([0, 1, 2]) - thirds.astype(np.int64)[:, None]) % 3
    mirrored = turn < 0
    channels[mirrored] = channels[mirrored][:, [0, 2, 1]]
    return {
        "hue_turn": np.abs(turn).astype(np.float32),
        "hue_mirrored": mirrored,
        "hue_channels": channels.astype(np.int32),
    }
