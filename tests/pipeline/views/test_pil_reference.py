"""The oracle itself, by hand: every expected pixel is worked out here."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.views.draw import ViewParameters
from coke.pipeline.views.pil_reference import PilViews, reference_view

#: Pixels come out as grey levels 0..255.
RAW = ViewRecipe(size=8, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
#: 8 x 8, every pixel its own colour: red says the row, green the column.
GRID = np.stack(
    [*np.meshgrid(np.arange(8) * 10, np.arange(8) * 20, indexing="ij"), np.full((8, 8), 7)], -1
).astype(np.uint8)


def parameters(
    top: int = 0,
    left: int = 0,
    height: int = 8,
    width: int = 8,
    flip: int = 0,
    brightness: float = 1,
    contrast: float = 1,
    saturation: float = 1,
    hue_degrees: float = 0,
    blur_sigma: float = 0,
    solarize: int = 0,
) -> ViewParameters:
    def whole(x: int) -> NDArray[np.int32]:
        return np.array([x], dtype=np.int32)

    def real(x: float) -> NDArray[np.float32]:
        return np.array([x], dtype=np.float32)

    return ViewParameters(
        top=whole(top),
        left=whole(left),
        height=whole(height),
        width=whole(width),
        flip=whole(flip),
        brightness=real(brightness),
        contrast=real(contrast),
        saturation=real(saturation),
        hue_degrees=real(hue_degrees),
        blur_sigma=real(blur_sigma),
        solarize=whole(solarize),
    )


def view_of(
    pixels: NDArray[np.uint8], drawn: ViewParameters, recipe: ViewRecipe = RAW
) -> NDArray[np.float32]:
    return reference_view(Image.fromarray(pixels), recipe, drawn, 0)


def flat(red: int, green: int, blue: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), (red, green, blue), dtype=np.uint8)


def test_nothing_drawn_is_the_image_itself() -> None:
    view = view_of(GRID, parameters())
    assert view.dtype == np.float32
    np.testing.assert_allclose(view, GRID, atol=1e-3)


def test_flip_mirrors_left_and_right() -> None:
    np.testing.assert_allclose(view_of(GRID, parameters(flip=1)), GRID[:, ::-1], atol=1e-3)


def test_crop_takes_rows_from_top_and_columns_from_left() -> None:
    big = np.zeros((20, 30, 3), dtype=np.uint8)
    big[3:11, 15:23] = GRID
    np.testing.assert_allclose(view_of(big, parameters(top=3, left=15)), GRID, atol=1e-3)


def test_resize_averages_when_it_shrinks() -> None:
    """Rows alternate between 0 and 100: antialiasing gives 50 everywhere but at the border."""
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[::2] = 100
    view = view_of(stripes, parameters(height=32, width=32))
    np.testing.assert_allclose(view[1:-1], 50, atol=1)


def test_normalisation() -> None:
    recipe = ViewRecipe(size=8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    view = view_of(flat(255, 0, 51), parameters(), recipe)
    # (1 - 0.5) / 0.5, (0 - 0.25) / 0.25, (0.2 - 0) / 2
    np.testing.assert_allclose(view[0, 0], [1.0, -1.0, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (parameters(brightness=0.5), (100, 50, 20)),
        (parameters(brightness=1.5), (255, 150, 60)),  # clipped at white
        (parameters(brightness=0.33), (66, 33, 13)),  # 13.2: fractions are cut off
        # Luma 0.299 * 200 + 0.587 * 100 + 0.114 * 40 = 123.06
        (parameters(saturation=0), (123, 123, 123)),
        (parameters(saturation=0.5), (161, 111, 81)),  # 161.5, 111.5, 81.5
        (parameters(saturation=2), (255, 77, 0)),  # 277, 77, -43
        # Contrast pulls towards the mean luma of the view.
        (parameters(contrast=0), (123, 123, 123)),
        (parameters(contrast=0.5), (161, 111, 81)),
        (parameters(contrast=2), (255, 77, 0)),
        (parameters(blur_sigma=2), (200, 100, 40)),  # a flat image has nothing to blur
        (parameters(solarize=1), (55, 100, 40)),  # 255 - 200; the others are below 128
        (parameters(hue_degrees=120), (40, 200, 100)),  # red -> green -> blue
        (parameters(hue_degrees=-120), (100, 40, 200)),
        # Order. Brightness, then contrast about the new mean: 100, 50, 20 about 62.
        (parameters(brightness=0.5, contrast=0.5), (81, 56, 41)),
        # Brightness clips before contrast sees it: 255, 200, 80 about 203 (202.8).
        (parameters(brightness=2, contrast=0.5), (229, 201, 141)),
        # Gray comes after hue: luma of (40, 200, 100) = 140.8.
        (parameters(hue_degrees=120, saturation=0), (141, 141, 141)),
        # Solarize after all colours: 246 and 153 are inverted, 60 is not.
        (parameters(brightness=1.53, solarize=1), (0, 102, 61)),
    ],
)
def test_colours_by_hand(drawn: ViewParameters, expected: tuple[float, float, float]) -> None:
    view = view_of(flat(200, 100, 40), drawn)
    tolerance = 5.0 if drawn.hue_degrees[0] else 0.01  # hue moves in steps of 1.4 degrees
    np.testing.assert_allclose(view, np.broadcast_to(expected, view.shape), atol=tolerance)


def test_contrast_pivots_at_the_mean_of_the_whole_view() -> None:
    """Upper half 200, lower half 40: mean 120, so 0.5 gives 160 and 80."""
    pixels = np.concatenate([flat(200, 200, 200)[:4], flat(40, 40, 40)[:4]])
    view = view_of(pixels, parameters(contrast=0.5))
    np.testing.assert_allclose(view[:4], 160, atol=0.01)
    np.testing.assert_allclose(view[4:], 80, atol=0.01)


def test_hue_is_torchvisions() -> None:
    """torchvision adds int(turns * 255) to PIL's uint8 hue, towards zero and with wrap-around."""
    red = np.array([[[255, 0, 0]]], dtype=np.uint8)
    for degrees, step in ((100, 70), (-100, -70), (1, 0), (-1.5, -1), (180, 127)):
        hsv = np.array([[[step % 256, 255, 255]]], dtype=np.uint8)
        expected = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))[0, 0]
        view = view_of(np.broadcast_to(red, (8, 8, 3)), parameters(hue_degrees=degrees))
        np.testing.assert_allclose(view[0, 0], expected, atol=0.01)


def test_blur_spreads_an_edge_evenly() -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = 200
    recipe = ViewRecipe(size=16, mean=RAW.mean, std=RAW.std)
    view = view_of(pixels, parameters(height=16, width=16, blur_sigma=1), recipe)
    row = view[8, :, 0]
    assert (np.diff(row) >= 0).all()
    np.testing.assert_allclose(row + row[::-1], 200, atol=2)  # symmetric about the edge
    # The normal distribution half a pixel past the edge: 200 * Phi(0.5) = 138.3.
    assert abs(row[8] - 138.3) < 8


def test_streamed_batches() -> None:
    buffer = io.BytesIO()
    Image.fromarray(flat(200, 100, 40)).convert("L").save(buffer, "JPEG", quality=95)
    encoded = [np.frombuffer(buffer.getvalue(), dtype=np.uint8)]
    dark, bright = parameters(brightness=0.5), parameters()
    views = list(PilViews([RAW, RAW]).stream(iter([(encoded, [dark, bright])] * 2)))
    assert len(views) == 2
    for first, second in views:
        assert first.shape == second.shape == (1, 3, 8, 8)
        assert first.stride()[1] == 1  # channels_last
        np.testing.assert_allclose(first.numpy(), 61.5, atol=1.5)
        np.testing.assert_allclose(second.numpy(), 123, atol=1.5)
