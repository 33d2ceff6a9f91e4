"""Views in PIL and numpy: the oracle of tests, and the fallback where DALI has no wheel.

Colours have the meaning of torchvision's transforms of PIL images, with uint8 between any two
steps. It works on one image at a time, in one thread, without reading ahead: about a third of
DALI's speed on two cores.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from coke.config.view_recipe import SOLARIZE_THRESHOLD, ViewRecipe
from coke.pipeline.images.pixel_limit import no_pixel_limit
from coke.pipeline.views.draw import ViewParameters


def reference_view(
    image: Image.Image, recipe: ViewRecipe, drawn: ViewParameters, row: int
) -> NDArray[np.float32]:
    """One view (S, S, 3) float32 of an RGB image, with row ``row`` of the drawn parameters."""
    top, left = int(drawn.top[row]), int(drawn.left[row])
    height, width = int(drawn.height[row]), int(drawn.width[row])
    side = (recipe.size, recipe.size)
    view = image.crop((left, top, left + width, top + height)).resize(
        side, Image.Resampling.BILINEAR
    )
    view = _jitter(view, drawn, row)
    if drawn.blur_sigma[row] > 0:
        view = view.filter(ImageFilter.GaussianBlur(float(drawn.blur_sigma[row])))
    if drawn.solarize[row]:
        view = ImageOps.solarize(view, SOLARIZE_THRESHOLD)
    if drawn.flip[row]:
        view = ImageOps.mirror(view)
    pixels = np.asarray(view, dtype=np.float32) / np.float32(255)
    normalised: NDArray[np.float64] = (pixels - np.array(recipe.mean)) / np.array(recipe.std)
    return normalised.astype(np.float32)


def _jitter(view: Image.Image, drawn: ViewParameters, row: int) -> Image.Image:
    view = _enhanced(ImageEnhance.Brightness, view, float(drawn.brightness[row]))
    view = _enhanced(ImageEnhance.Contrast, view, float(drawn.contrast[row]))
    view = _hue_turned(view, float(drawn.hue_degrees[row]))
    return _enhanced(ImageEnhance.Color, view, float(drawn.saturation[row]))


def _enhanced(operation: Any, view: Image.Image, factor: float) -> Image.Image:
    enhanced: Image.Image = view if factor == 1 else operation(view).enhance(factor)
    return enhanced


def _hue_turned(view: Image.Image, degrees: float) -> Image.Image:
    if degrees == 0:
        return view
    hsv = np.array(view.convert("HSV"))
    steps = int(degrees / 360 * 255)  # torchvision has 255 steps per turn, and truncates
    hsv[..., 0] += np.uint8(steps % 256)  # wraps, as hue does
    return Image.fromarray(hsv, "HSV").convert("RGB")


class PilViews:
    """The interface of :class:`~coke.pipeline.views.dali_views.DaliViews`, in one thread."""

    def __init__(self, recipes: Sequence[ViewRecipe]) -> None:
        self.recipes = tuple(recipes)

    def stream(
        self, batches: Iterator[tuple[list[NDArray[np.uint8]], list[ViewParameters]]]
    ) -> Iterator[list[Tensor]]:
        """Yields, per batch, the views as (B, 3, S, S) float32 tensors in channels_last memory."""
        for encoded, parameters in batches:
            with no_pixel_limit():
                images = [Image.open(io.BytesIO(e.tobytes())).convert("RGB") for e in encoded]
                views_BHWC = [
                    np.stack([reference_view(im, recipe, drawn, i) for i, im in enumerate(images)])
                    for recipe, drawn in zip(self.recipes, parameters, strict=True)
                ]
            yield [torch.from_numpy(view).permute(0, 3, 1, 2) for view in views_BHWC]
