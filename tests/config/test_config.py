"""The settings of a run: what follows from them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coke.config.config import Config
from coke.config.overrides import with_settings
from coke.config.presets import preset_named


def test_alpha_moves_from_its_start_over_the_warmup() -> None:
    config = replace(Config(), views=2, epochs=8, alpha=0.2, alpha_start=1.0, alpha_warmup=0.5)
    alphas = [config.alpha_at(epoch) for epoch in range(8)]
    assert alphas == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    whole = replace(config, alpha_warmup=1.0)
    assert [whole.alpha_at(e) for e in (1, 5, 8)] == pytest.approx([1.0, 0.6, 0.3])
    low = replace(config, alpha_start=0.0)
    assert [low.alpha_at(e) for e in (1, 3, 9)] == pytest.approx([0.0, 0.1, 0.2])


def test_both_large_views_grow_and_small_ones_do_not() -> None:
    config = with_settings(
        preset_named("imagenet-multicrop"), {"epochs": 8, "start_size": 112, "small_views": 1}
    )
    sizes = [[recipe.size for recipe in config.recipes_at(epoch)] for epoch in (0, 1, 8)]
    assert sizes == [[112, 112], [112, 112, 96], [224, 224, 96]]
    assert config.recipes_at(1)[1].solarize_p == 0.2


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("imagenet-2view", {"view": {"size": 96}}, r"view.size is 96 and second_view.size is 224"),
        (
            "imagenet-2view",
            {"second_view": {"std": [1, 1, 1]}},
            r"view.std is .* and second_view.std is \(1.0, 1.0, 1.0\); give both the same",
        ),
        (
            "imagenet-multicrop",
            {"view": {"mean": [0, 0, 0]}, "second_view": {"mean": [0, 0, 0]}},
            r"view.mean is .* and small_view.mean is",
        ),
        ("imagenet-1view", {"small_views": 2}, r"small_views is 2 with 1 view; .*--views 2"),
        ("imagenet-2view", {"small_views": -1}, "small_views is -1"),
        ("imagenet-2view", {"alpha": 1.5}, "alpha is 1.5; it is a weight between 0 and 1"),
        ("imagenet-2view", {"beta": 0.0}, "no loss would reach the predictor; .*_hidden=0"),
        ("imagenet-2view", {"alpha_start": -0.1}, "alpha_start is -0.1; it is a weight"),
        ("imagenet-2view", {"alpha_warmup": 1.5}, "alpha_warmup is 1.5; it is a share"),
        ("imagenet-2view", {"reference_temperature": -0.1}, "reference_temperature is -0.1"),
    ],
)
def test_views_that_do_not_go_together_are_named(
    preset: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        with_settings(preset_named(preset), settings)


def test_one_view_may_differ_from_an_unused_second_one() -> None:
    config = with_settings(preset_named("imagenet-1view"), {"view": {"size": 96}})
    assert [recipe.size for recipe in config.recipes_at(1)] == [96]


def test_views_grow_by_4_pixels_and_have_their_size_in_the_last_quarter() -> None:
    config = with_settings(Config(), {"epochs": 8, "start_size": 16, "view": {"size": 24}})
    sizes = [config.recipes_at(epoch)[0].size for epoch in range(9)]
    assert sizes == [16, 16, 16, 16, 20, 20, 20, 24, 24]
    assert with_settings(config, {"start_size": 0}).recipes_at(0) == (config.view,)
    with pytest.raises(ValueError, match=r"start_size is 25; .* view.size \(24\)"):
        with_settings(config, {"start_size": 25})
