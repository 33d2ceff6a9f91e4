"""Drawn parameters: a pure function of the id, in range, with the right probabilities."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coke.config.view_recipe import (
    IMAGENET_MULTICROP,
    IMAGENET_SINGLE_VIEW,
    IMAGENET_TWO_VIEW,
    NAMED_RECIPES,
    ViewRecipe,
)
from coke.pipeline.views.draw import ViewParameters, draw

NAMES = [f.name for f in fields(ViewParameters)]
IDS = np.arange(5000)


def drawn(
    recipe: ViewRecipe,
    ids: NDArray[np.int64] = IDS,
    height: int = 120,
    width: int = 160,
    *,
    seed: int = 0,
    epoch: int = 0,
    view: int = 0,
) -> ViewParameters:
    return draw(
        recipe,
        seed=seed,
        epoch=epoch,
        view=view,
        ids=ids,
        heights=np.full(len(ids), height),
        widths=np.full(len(ids), width),
    )


def test_parameters_of_an_id_do_not_depend_on_its_batch() -> None:
    recipe = ViewRecipe()
    sides = 50 + IDS % 200  # another size for each id
    whole = draw(recipe, seed=1, epoch=2, view=0, ids=IDS, heights=sides, widths=sides[::-1])
    some = np.array([4999, 0, 17, 17, 2500])
    part = draw(
        recipe,
        seed=1,
        epoch=2,
        view=0,
        ids=some,
        heights=sides[some],
        widths=sides[::-1][some],
    )
    for name in NAMES:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"view": 1}])
def test_seed_epoch_and_view_each_change_everything(other: dict[str, Any]) -> None:
    a, b = drawn(ViewRecipe()), drawn(ViewRecipe(), **other)
    for name in ("left", "brightness", "contrast", "saturation", "hue_degrees", "blur_sigma"):
        x, y = getattr(a, name), getattr(b, name)
        both = (x != x[np.argmin(np.abs(x))]) & (y != 0) & (y != 1)  # drawn, not switched off
        assert (x == y)[both].mean() < 0.05


def test_types() -> None:
    p = drawn(ViewRecipe())
    for name in NAMES:
        whole = name in ("top", "left", "height", "width", "flip", "solarize")
        assert getattr(p, name).dtype == (np.int32 if whole else np.float32)
        assert getattr(p, name).shape == (5000,)


@pytest.mark.parametrize(
    ("height", "width"), [(120, 160), (1, 500), (500, 1), (1, 1), (2, 3), (65535, 7), (33, 33)]
)
@pytest.mark.parametrize("crop", ["random", "center"])
def test_crops_lie_inside_the_image(height: int, width: int, crop: str) -> None:
    p = drawn(ViewRecipe(crop=crop), height=height, width=width)
    assert p.height.min() >= 1 and p.width.min() >= 1
    assert p.top.min() >= 0 and p.left.min() >= 0
    assert (p.top + p.height).max() <= height
    assert (p.left + p.width).max() <= width


def test_random_crops_have_the_asked_area_and_aspect() -> None:
    recipe = ViewRecipe(scale=(0.2, 0.6), ratio=(0.5, 2.0))
    p = drawn(recipe, height=400, width=400)
    area = p.height.astype(float) * p.width / 400**2
    aspect = p.width / p.height
    assert area.min() > 0.199 and area.max() < 0.601  # sides are rounded to pixels
    assert aspect.min() > 0.495 and aspect.max() < 2.02
    assert abs(area.mean() - 0.4) < 0.01
    assert abs(np.log(aspect).mean()) < 0.03  # as often wide as tall
    # Places are uniform over what fits, both ends included.
    room = 400 - p.width
    assert abs((p.left[room > 0] / room[room > 0]).mean() - 0.5) < 0.02
    assert (p.left == 0).any() and (p.left == room).any()


def test_the_whole_image_is_a_crop_of_scale_and_ratio_one() -> None:
    p = drawn(ViewRecipe(scale=(1, 1), ratio=(1, 1)), IDS[:10], height=50, width=50)
    for name, value in (("top", 0), ("left", 0), ("height", 50), ("width", 50)):
        assert set(getattr(p, name).tolist()) == {value}


def test_fallback_is_the_largest_allowed_center_crop() -> None:
    """Nothing of at least 8 % of a 10 x 500 image fits between 3:4 and 4:3."""
    p = drawn(ViewRecipe(), IDS[:50], height=10, width=500)
    # As high as the image, 10 * 4 / 3 = 13.33 wide; (500 - 13) // 2 = 243 from the left.
    expected = {"top": 0, "left": 243, "height": 10, "width": 13}
    for name, value in expected.items():
        assert set(getattr(p, name).tolist()) == {value}
    p = drawn(ViewRecipe(), IDS[:50], height=500, width=10)  # 10 / (3 / 4) = 13.33 high
    expected = {"top": 243, "left": 0, "height": 13, "width": 10}
    for name, value in expected.items():
        assert set(getattr(p, name).tolist()) == {value}


def test_fallback_keeps_an_image_whose_aspect_is_allowed() -> None:
    """At scale 1 only crops of nearly the image's own aspect fit: most ids try in vain."""
    p = drawn(ViewRecipe(scale=(1, 1), ratio=(0.5, 2)), height=100, width=115)
    whole = (p.height == 100) & (p.width == 115)
    assert whole.mean() > 0.7
    assert (p.top[whole] == 0).all() and (p.left[whole] == 0).all()
    assert p.height.min() >= 99 and p.width.min() >= 114  # the few that did fit


def test_one_batch_mixes_fallback_and_fitting_crops() -> None:
    ids = np.arange(4)
    heights, widths = np.array([10, 100, 10, 100]), np.array([500, 100, 500, 100])
    p = draw(ViewRecipe(), seed=0, epoch=0, view=0, ids=ids, heights=heights, widths=widths)
    alone = drawn(ViewRecipe(), ids, height=100, width=100)
    assert p.left[[0, 2]].tolist() == [243, 243]
    for name in ("top", "left", "height", "width"):
        np.testing.assert_array_equal(getattr(p, name)[[1, 3]], getattr(alone, name)[[1, 3]])


@pytest.mark.parametrize(
    ("height", "width", "fraction", "expected"),
    [
        (256, 341, 0.875, (16, 58, 224, 224)),  # 0.875 * 256 = 224; (341 - 224) // 2 = 58
        (10, 7, 1.0, (1, 0, 7, 7)),
        (5, 5, 0.5, (1, 1, 2, 2)),  # 2.5 rounds to even
        (1, 9, 0.1, (0, 4, 1, 1)),  # never empty
    ],
)
def test_center_crop_by_hand(
    height: int, width: int, fraction: float, expected: tuple[int, int, int, int]
) -> None:
    recipe = ViewRecipe(crop="center", center_fraction=fraction)
    p = drawn(recipe, IDS[:1], height=height, width=width)
    assert (int(p.top[0]), int(p.left[0]), int(p.height[0]), int(p.width[0])) == expected


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_probabilities(p: float) -> None:
    d = drawn(ViewRecipe(flip_p=p, jitter_p=p, gray_p=p, blur_p=p, solarize_p=p))
    shares = {
        "flip": np.mean(d.flip == 1),
        "jitter": np.mean(d.brightness != 1),
        "gray": np.mean(d.saturation == 0),
        "blur": np.mean(d.blur_sigma > 0),
        "solarize": np.mean(d.solarize == 1),
    }
    tolerance = 4 * np.sqrt(p * (1 - p) / 5000)  # exact at 0 and 1
    for name, share in shares.items():
        assert abs(share - p) <= tolerance, name


def test_switches_are_independent() -> None:
    d = drawn(ViewRecipe(flip_p=0.5, jitter_p=0.5, gray_p=0.5, blur_p=0.5, solarize_p=0.5))
    switches = np.stack(
        [d.flip, d.brightness != 1, d.saturation == 0, d.blur_sigma > 0, d.solarize]
    )
    values = np.stack([d.contrast, d.hue_degrees, d.top])
    correlation = np.corrcoef(np.concatenate([switches.astype(float), values]))
    assert np.abs(correlation - np.eye(8)).max() < 0.06  # 4 standard errors


def test_jitter_moves_all_four_or_none() -> None:
    d = drawn(ViewRecipe(jitter_p=0.5, gray_p=0.0))
    moved = np.stack([d.brightness != 1, d.contrast != 1, d.saturation != 1, d.hue_degrees != 0])
    assert (moved.all(axis=0) | ~moved.any(axis=0)).all()


def test_jitter_ranges() -> None:
    d = drawn(ViewRecipe(jitter=(0.4, 0.8, 1.5, 0.1), jitter_p=1.0, gray_p=0.0))
    for name, low, high in [
        ("brightness", 0.6, 1.4),
        ("contrast", 0.2, 1.8),
        ("saturation", 0.0, 2.5),  # never below 0
        ("hue_degrees", -36.0, 36.0),
    ]:
        values = getattr(d, name)
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
        spread = (high - low) / np.sqrt(12 * 5000)  # standard error of a uniform's mean
        assert abs(values.mean() - (low + high) / 2) < 4 * spread, name


def test_blur_sigma_is_uniform_in_its_range() -> None:
    for p in (1.0, 0.3):
        sigma = drawn(ViewRecipe(blur_p=p, blur_sigma=(0.5, 1.5))).blur_sigma
        sigma = sigma[sigma > 0]
        assert sigma.min() >= 0.5 and sigma.max() <= 1.5
        counts = np.histogram(sigma, bins=5, range=(0.5, 1.5))[0]
        expected = len(sigma) / 5
        assert ((counts - expected) ** 2 / expected).sum() < 23.5  # once in 10,000


def test_draws_stay_what_they_were() -> None:
    """Recorded before solarize was drawn: runs resume with the crops and colours they had."""
    p = draw(
        ViewRecipe(solarize_p=0.5),
        seed=3,
        epoch=5,
        view=1,
        ids=np.array([0, 7, 1281166]),
        heights=np.array([375, 500, 300]),
        widths=np.array([500, 375, 300]),
    )
    recorded: dict[str, list[float]] = {
        "top": [88, 195, 0],
        "left": [25, 45, 20],
        "height": [271, 244, 221],
        "width": [266, 201, 256],
        "flip": [1, 1, 1],
        "brightness": [1.0163007, 0.3330642, 1.0],
        "contrast": [1.5641764, 1.0561179, 1.0],
        "saturation": [0.0, 1.2430257, 1.0],
        "hue_degrees": [-46.112137, 26.611546, 0.0],
        "blur_sigma": [1.9024346, 0.0, 0.1858407],
    }
    for name, values in recorded.items():
        np.testing.assert_allclose(getattr(p, name), values, rtol=1e-6)


def test_solarize_changes_no_other_draw() -> None:
    with_it, without = drawn(ViewRecipe(solarize_p=1.0)), drawn(ViewRecipe())
    for name in set(NAMES) - {"solarize"}:
        np.testing.assert_array_equal(getattr(with_it, name), getattr(without, name))


def test_named_recipes_are_the_released_ones() -> None:
    single = ViewRecipe(
        size=224, scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, gray_p=0.2,
        blur_p=0.5, blur_sigma=(0.1, 2.0), solarize_p=0.0, flip_p=0.5,
    )  # fmt: skip
    assert single == IMAGENET_SINGLE_VIEW
    first, second = IMAGENET_TWO_VIEW
    assert first == replace(single, jitter=(0.4, 0.4, 0.2, 0.1), blur_p=1.0)
    assert second == replace(first, blur_p=0.1, solarize_p=0.2)
    assert IMAGENET_MULTICROP[:2] == IMAGENET_TWO_VIEW
    assert IMAGENET_MULTICROP[2:] == (replace(single, size=96, scale=(0.05, 0.6)),) * 6
    assert {name: len(views) for name, views in NAMED_RECIPES.items()} == {
        "imagenet-1view": 1,
        "imagenet-2views": 2,
        "imagenet-multicrop": 8,
    }


def test_derived_recipes() -> None:
    recipe = ViewRecipe(size=96, scale=(0.3, 0.9), solarize_p=0.5, mean=(0.1, 0.2, 0.3))
    for derived in (recipe.evaluation(), recipe.crop_and_flip()):
        assert (derived.size, derived.scale, derived.mean) == (96, (0.3, 0.9), (0.1, 0.2, 0.3))
        d = drawn(derived)
        assert set(d.brightness) == set(d.contrast) == set(d.saturation) == {1.0}
        assert set(d.hue_degrees) == set(d.blur_sigma) == set(d.solarize) == {0.0}
    evaluation, training = drawn(recipe.evaluation()), drawn(recipe.crop_and_flip())
    assert set(evaluation.flip) == {0} and len(set(evaluation.left)) == 1
    assert set(training.flip) == {0, 1} and len(set(training.left)) > 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 7),
        ("crop", "middle"),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 0.4)),
        ("scale", (0.5, 1.1)),
        ("ratio", (0.0, 1.0)),
        ("ratio", (2.0, 1.0)),
        ("center_fraction", 0.0),
        ("center_fraction", 1.1),
        ("center_fraction", float("nan")),
        ("jitter", (0.1, 0.1, -0.1, 0.1)),
        ("jitter", (0.1, 0.1, 0.1, 0.6)),
        ("jitter_p", 1.1),
        ("gray_p", -0.1),
        ("blur_p", 2),
        ("flip_p", float("nan")),
        ("solarize_p", -0.5),
        ("blur_sigma", (0.0, 1.0)),
        ("blur_sigma", (2.0, 1.0)),
        ("std", (0.2, 0.0, 0.2)),
    ],
)
def test_wrong_values_name_their_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"view {field} is "):
        ViewRecipe(**{field: value})
