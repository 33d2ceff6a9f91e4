"""From a view recipe to numbers: the parameters of each view of a batch of ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.randomness import key_of, uniforms

_PURPOSE = 0xA06  # keys of these numbers: no other random number shares them
_CROP_TRIES = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """Concrete parameters of one view for a batch; every array is (B,).

    ``top, left, height, width`` are the crop in pixels of the stored image. The others are applied
    in the order brightness, contrast, hue, saturation, blur, solarize, flip. Factors of 1 and a hue
    of 0 leave colours as they are. Saturation 0 is grayscale, blur_sigma 0 is no blur; ``flip`` and
    ``solarize`` are 0 or 1.
    """

    top: NDArray[np.int32]
    left: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    flip: NDArray[np.int32]
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    saturation: NDArray[np.float32]
    hue_degrees: NDArray[np.float32]
    blur_sigma: NDArray[np.float32]
    solarize: NDArray[np.int32]


def draw(
    recipe: ViewRecipe,
    *,
    seed: int,
    epoch: int,
    view: int,
    ids: NDArray[np.int64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> ViewParameters:
    """Parameters for a batch: a pure function of (seed, epoch, view, id) and the image's size.

    Crops follow torchvision's RandomResizedCrop (ten tries, then the center). Colour factors follow
    its ColorJitter, but in one fixed order instead of a random one.
    """
    # Columns are independent: a number that is added later takes a new column and changes no other.
    u = uniforms(key_of(_PURPOSE, seed, epoch, view), ids, 2 * _CROP_TRIES + 11)
    tries, rest = u[:, : 2 * _CROP_TRIES], u[:, 2 * _CROP_TRIES :]
    if recipe.crop == "random":
        top, left, height, width = _random_crop(recipe, tries, rest[:, 0:2], heights, widths)
    else:
        height = width = np.maximum(
            np.rint(recipe.center_fraction * np.minimum(heights, widths)).astype(np.int64), 1
        )
        top, left = (heights - height) // 2, (widths - width) // 2

    jittered = rest[:, 3] < recipe.jitter_p

    def factor(column: int, strength: float) -> NDArray[np.float32]:
        low, high = max(0.0, 1 - strength), 1 + strength
        return np.where(jittered, low + rest[:, column] * (high - low), 1.0).astype(np.float32)

    hue = np.where(jittered, (2 * rest[:, 7] - 1) * recipe.jitter[3] * 360, 0.0)
    # Saturation is the jitter's last step, so that 0 there is grayscale after the jitter.
    saturation = np.where(rest[:, 8] < recipe.gray_p, 0.0, factor(6, recipe.jitter[2]))
    low, high = recipe.blur_sigma
    # One number decides both whether to blur and sigma: below blur_p it is uniform in [0, blur_p).
    sigma = low + rest[:, 9] / max(recipe.blur_p, 1e-9) * (high - low)
    return ViewParameters(
        top=top.astype(np.int32),
        left=left.astype(np.int32),
        height=height.astype(np.int32),
        width=width.astype(np.int32),
        flip=(rest[:, 2] < recipe.flip_p).astype(np.int32),
        brightness=factor(4, recipe.jitter[0]),
        contrast=factor(5, recipe.jitter[1]),
        saturation=saturation.astype(np.float32),
        hue_degrees=hue.astype(np.float32),
        blur_sigma=np.where(rest[:, 9] < recipe.blur_p, sigma, 0.0).astype(np.float32),
        solarize=(rest[:, 10] < recipe.solarize_p).astype(np.int32),
    )


def _random_crop(
    recipe: ViewRecipe,
    tries: NDArray[np.float64],
    place: NDArray[np.float64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    rows, h1, w1 = np.arange(len(heights)), heights[:, None], widths[:, None]
    area = (h1 * w1) * (recipe.scale[0] + tries[:, 0::2] * (recipe.scale[1] - recipe.scale[0]))
    low, high = np.log(recipe.ratio[0]), np.log(recipe.ratio[1])
    aspect = np.exp(low + tries[:, 1::2] * (high - low))
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= w1) & (h > 0) & (h <= h1)
    first = fits.argmax(axis=1)
    height, width = h[rows, first], w[rows, first]
    top = np.floor(place[:, 0] * (heights - height + 1)).astype(np.int64)
    left = np.floor(place[:, 1] * (widths - width + 1)).astype(np.int64)

    # No try fitted: the largest center crop within the allowed aspect ratios.
    none = ~fits.any(axis=1)
    if none.any():
        H, W = heights[none], widths[none]
        tall, wide = recipe.ratio[0] > W / H, recipe.ratio[1] < W / H
        fallback_h = np.where(tall, np.rint(W / recipe.ratio[0]), H).astype(np.int64)
        fallback_w = np.where(wide, np.rint(H * recipe.ratio[1]), W).astype(np.int64)
        height[none], width[none] = np.maximum(fallback_h, 1), np.maximum(fallback_w, 1)
        top[none], left[none] = (H - height[none]) // 2, (W - width[none]) // 2
    return top, left, height, width
