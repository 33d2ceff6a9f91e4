"""The settings of a run: what follows from them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from coke.config.config import Config
from coke.config.overrides import parse_assignments, with_settings
from coke.config.presets import preset_named


def test_alpha_moves_from_its_start_over_the_warmup() -> None:
    config = Config().changed(
        data={"views": 2},
        optimizer={"epochs": 8},
        loss={"alpha": 0.2, "alpha_start": 1.0, "alpha_warmup": 0.5},
    )
    alphas = [config.loss.alpha_at(epoch, config.optimizer.epochs) for epoch in range(8)]
    assert alphas == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    whole = config.changed(loss={"alpha_warmup": 1.0})
    assert [whole.loss.alpha_at(e, whole.optimizer.epochs) for e in (1, 5, 8)] == pytest.approx(
        [1.0, 0.6, 0.3]
    )
    low = config.changed(loss={"alpha_start": 0.0})
    assert [low.loss.alpha_at(e, low.optimizer.epochs) for e in (1, 3, 9)] == pytest.approx(
        [0.0, 0.1, 0.2]
    )


def test_large_views_take_both_recipes_in_turns() -> None:
    config = preset_named("imagenet-multicrop").changed(data={"views": 5, "small_views": 1})
    first, second, small = config.data.view, config.data.second_view, config.data.small_view
    assert config.recipes_at(0) == (first, second, first, second, first)
    assert config.recipes_at(1) == (first, second, first, second, first, small)
    assert config.changed(data={"views": 1}).recipes_at(1) == (first, small)


def test_both_large_views_grow_and_small_ones_do_not() -> None:
    config = preset_named("imagenet-multicrop").changed(
        optimizer={"epochs": 8}, data={"start_size": 112, "small_views": 1}
    )
    sizes = [[recipe.size for recipe in config.recipes_at(epoch)] for epoch in (0, 1, 8)]
    assert sizes == [[112, 112], [112, 112, 96], [224, 224, 96]]
    assert config.recipes_at(1)[1].solarize_p == 0.2


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        (
            "imagenet-2view",
            {"data.view.size": 96},
            r"view.size is 96 and data.second_view.size is 224",
        ),
        (
            "imagenet-2view",
            {"data.second_view.std": [1, 1, 1]},
            r"view.std is .* and data.second_view.std is \(1.0, 1.0, 1.0\); give both the same",
        ),
        (
            "imagenet-multicrop",
            {"data.view.mean": [0, 0, 0], "data.second_view.mean": [0, 0, 0]},
            r"view.mean is .* and data.small_view.mean is",
        ),
        ("imagenet-2view", {"data.small_views": -1}, "small_views is -1"),
        ("imagenet-2view", {"loss.alpha": 1.5}, "alpha is 1.5; it is a weight between 0 and 1"),
        ("imagenet-2view", {"loss.beta": 0.0}, "no loss would reach the predictor; .*_hidden=0"),
        ("imagenet-2view", {"loss.alpha_start": -0.1}, "alpha_start is -0.1; it is a weight"),
        ("imagenet-2view", {"loss.alpha_warmup": 1.5}, "alpha_warmup is 1.5; it is a share"),
        ("imagenet-2view", {"loss.reference_temperature": -0.1}, "reference_temperature is -0.1"),
    ],
)
def test_views_that_do_not_go_together_are_named(
    preset: str, settings: dict[str, Any], message: str
) -> None:
    given = parse_assignments([f"{key}={value}" for key, value in settings.items()])
    with pytest.raises(ValueError, match=message):
        with_settings(preset_named(preset), given)


def test_one_view_may_differ_from_an_unused_second_one() -> None:
    config = with_settings(preset_named("imagenet-1view"), {"data": {"view": {"size": 96}}})
    assert [recipe.size for recipe in config.recipes_at(1)] == [96]


def test_views_grow_by_4_pixels_and_have_their_size_in_the_last_quarter() -> None:
    data = {"start_size": 16, "view": {"size": 24}}
    config = with_settings(Config(), {"optimizer": {"epochs": 8}, "data": data})
    sizes = [config.recipes_at(epoch)[0].size for epoch in range(9)]
    assert sizes == [16, 16, 16, 16, 20, 20, 20, 24, 24]
    assert config.changed(data={"start_size": 0}).recipes_at(0) == (config.data.view,)
    with pytest.raises(ValueError, match=r"start_size is 25; .* data.view.size \(24\)"):
        config.changed(data={"start_size": 25})


@pytest.mark.parametrize(
    ("patch", "start", "side", "expected"),
    [
        (16, 160, 224, [160, 160, 160, 176, 192, 192, 208, 224, 224]),
        (14, 168, 224, [168, 168, 168, 182, 196, 196, 210, 224, 224]),
        (4, 16, 24, [16, 16, 16, 16, 20, 20, 20, 24, 24]),
    ],
)
def test_views_of_a_vit_grow_by_whole_patches(
    patch: int, start: int, side: int, expected: list[int]
) -> None:
    settings = {
        "model": {"backbone": "vit", "patch": patch},
        "data": {"start_size": start, "view": {"size": side}},
        "optimizer": {"epochs": 8},
    }
    config = with_settings(Config(), settings)
    assert [config.recipes_at(epoch)[0].size for epoch in range(9)] == expected
