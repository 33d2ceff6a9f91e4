"""Settings: presets, TOML, overrides, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coke.config import (
    Config,
    differences,
    load_toml,
    parse_assignments,
    preset_named,
    presets,
    to_toml,
    view_recipes,
    with_settings,
)
from coke.pipeline.recipe import IMAGENET_MULTICROP, IMAGENET_TWO_VIEW, ViewRecipe


@pytest.mark.parametrize("name", list(presets))
def test_a_preset_survives_toml(name: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(to_toml(presets[name]))
    assert with_settings(Config(), load_toml(tmp_path / "c.toml")) == presets[name]
    assert presets[name].preset == name


def test_the_imagenet_preset_is_the_papers() -> None:
    config = preset_named("imagenet-1view")
    assert (config.batch_size, config.temperature, config.views) == (1024, 0.1, 1)
    assert (config.optimizer.name, config.optimizer.lr) == ("lars", 1.6)
    assert (config.optimizer.weight_decay, config.optimizer.warmup_epochs) == (1e-6, 10)
    assert (config.clustering.dual_rule, config.clustering.dual_lr) == ("paper", 20.0)
    assert config.clustering.min_ratio == 0.4
    assert config.clustering.n_clusters == (3000, 4000, 5000)
    assert (config.model.depth, config.model.width, config.model.dim) == (50, 64, 128)


#: What the paper and its release say of each preset: epochs, stage, T, layers, predictor, beta.
@pytest.mark.parametrize(
    ("name", "epochs", "first_stage", "temperature", "layers", "predictor", "beta"),
    [
        (
            "imagenet-1view",
            800,
            641,
            0.1,
            2,
            0,
            1.0,
        ),  # Table 5; 160/200 of the epochs, and the scan
        ("imagenet-1view-long", 1000, 801, 0.1, 3, 2048, 1.0),  # Table 7
        ("imagenet-2view", 1000, 100_000, 0.05, 3, 2048, 0.5),
        ("imagenet-multicrop", 800, 100_000, 0.05, 3, 2048, 0.5),  # the release's third recipe
    ],
)
def test_the_imagenet_presets_are_the_papers(
    name: str,
    epochs: int,
    first_stage: int,
    temperature: float,
    layers: int,
    predictor: int,
    beta: float,
) -> None:
    config = preset_named(name)
    assert (config.epochs, config.clustering.first_stage_epochs) == (epochs, first_stage)
    assert (config.temperature, config.beta, config.batch_size) == (temperature, beta, 1024)
    assert (config.model.projector_layers, config.model.projector_hidden) == (layers, 2048)
    assert (config.model.predictor_hidden, config.model.dim) == (predictor, 128)
    assert config.model.projector_last_norm
    assert config.clustering.n_clusters == (3000, 4000, 5000)
    assert (config.clustering.dual_rule, config.clustering.dual_lr) == ("paper", 20.0)
    assert (config.clustering.label_size, config.clustering.label_temperature) == (5, 0.5)
    assert (config.optimizer.name, config.optimizer.lr) == ("lars", 1.6)


def test_the_multi_view_presets_have_the_papers_views_and_constant_alpha() -> None:
    two, multi = preset_named("imagenet-2view"), preset_named("imagenet-multicrop")
    assert two.recipes_at(1) == two.recipes_at(0) == IMAGENET_TWO_VIEW
    assert multi.recipes_at(1) == IMAGENET_MULTICROP
    assert multi.recipes_at(0) == IMAGENET_TWO_VIEW, "the scan clusters large views only"
    for config in (two, multi):
        assert [config.alpha_at(epoch) for epoch in (0, 1, 2, 500)] == [0.2] * 4
        assert config.reference_temperature == 0


def test_alpha_moves_from_its_start_over_the_warmup() -> None:
    config = replace(Config(), views=2, alpha=0.2, alpha_start=1.0, alpha_warmup_epochs=4)
    alphas = [config.alpha_at(epoch) for epoch in range(8)]
    assert alphas == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
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
        ("imagenet-2view", {"alpha_start": -0.1}, "alpha_start is -0.1; it is a weight"),
        ("imagenet-2view", {"alpha_warmup_epochs": -1}, "alpha_warmup_epochs is -1"),
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


def test_assignments_are_typed_as_toml_and_nested() -> None:
    settings = parse_assignments(
        ["model.depth=18", "optimizer.lr=1", "clustering.n_clusters=[5, 7]", "loader=pil"]
    )
    config = with_settings(Config(), settings)
    assert config.model.depth == 18
    assert config.optimizer.lr == 1.0 and isinstance(config.optimizer.lr, float)
    assert config.clustering.n_clusters == (5, 7)
    assert config.loader == "pil"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.dept=18", r"unknown config key 'model\.dept'; valid keys: depth, width, stem"),
        ("epoch=3", "unknown config key 'epoch'; valid keys: preset, views, small_views"),
        ("epochs=three", "config key 'epochs' is 'three'; it must be int"),
        ("epochs=true", "config key 'epochs' is True; it must be int"),
        ("drop_ragged=1", "config key 'drop_ragged' is 1; it must be bool"),
        ("view.scale=[0.1]", r"config key 'view\.scale' is \[0\.1\]; it must be tuple"),
        ("clustering.n_clusters=[5, 2.5]", "is 2.5; it must be int"),
        ("model=3", "config key 'model' is a section, not 3"),
        ("epochs", "has no '='"),
        ("views=3", "views is 3; train on 1 view or on 2"),
        ("epochs=0", "epochs is 0; it must be at least 1"),
        ("order=random", "order is 'random'; choose one of global, blocks"),
        ("window=0", "window is 0; give a number of containers"),
        ("cache_gb=0", "cache_gb is 0.0; give a positive number of gigabytes"),
        ("temperature=0.0", "temperature is 0.0; it must be positive"),
        ("beta=2", "beta is 2.0; it is a weight between 0 and 1"),
        ("view.size=0", "view size is 0"),
    ],
)
def test_bad_settings_name_the_key_and_the_value(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_settings(Config(), parse_assignments([assignment]))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'imagenet'; choose one of demo, cifar10, cifar10-2view"):
        preset_named("imagenet")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml cannot be read: No such file"):
        load_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = ")
    with pytest.raises(ValueError, match=r"bad\.toml is not valid TOML"):
        load_toml(tmp_path / "bad.toml")


def test_views_grow_by_4_pixels_and_have_their_size_in_the_last_quarter() -> None:
    config = with_settings(Config(), {"epochs": 8, "start_size": 16, "view": {"size": 24}})
    sizes = [config.recipes_at(epoch)[0].size for epoch in range(9)]
    assert sizes == [16, 16, 16, 16, 20, 20, 20, 24, 24]
    assert with_settings(config, {"start_size": 0}).recipes_at(0) == (config.view,)
    with pytest.raises(ValueError, match=r"start_size is 25; .* view.size \(24\)"):
        with_settings(config, {"start_size": 25})


def test_differences_name_both_values() -> None:
    a = Config()
    b = replace(a, epochs=7, model=replace(a.model, depth=18))
    assert differences(a, b) == ["epochs: 200 != 7", "model.depth: 50 != 18"]
    assert differences(a, Config()) == []


def test_views_by_name() -> None:
    assert view_recipes("imagenet-2views") == IMAGENET_TWO_VIEW
    assert view_recipes("cifar10") == (presets["cifar10"].view,)
    with pytest.raises(ValueError, match=r"'imagenet-3views'; choose one of demo, .*-2views, or"):
        view_recipes("imagenet-3views")


def test_the_multi_crop_recipe_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "views.toml").write_text(
        """
        [[view]]
        jitter = [0.4, 0.4, 0.2, 0.1]
        blur_p = 1
        [[view]]
        jitter = [0.4, 0.4, 0.2, 0.1]
        blur_p = 0.1
        solarize_p = 0.2
        [[view]]
        repeat = 6
        size = 96
        scale = [0.05, 0.6]
        """
    )
    views = view_recipes(tmp_path / "views.toml")
    assert views == IMAGENET_MULTICROP
    assert all(isinstance(view, ViewRecipe) for view in views)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[view]]\nblur = 1", r"unknown key 'blur' in view\[0\]; valid keys: size, .*, repeat"),
        ("[[view]]\n[[view]]\nsize = 'big'", r"'view\[1\]\.size' is 'big'; it must be int"),
        ("[[view]]\nblur_p = 2", "view blur_p is 2.0"),
        ("[[view]]\nrepeat = 0", r"view\[0\]\.repeat is 0"),
        ("size = 96", "unknown key 'size'; valid keys: view"),
        ("", r"has no \[\[view\]\] table"),
        ("view = [3]", r"view\[0\] is 3"),
        ("[view]\nsize = 96", r"has no \[\[view\]\] table"),
        ("[[view", "is not valid TOML"),
    ],
)
def test_bad_view_files_name_file_key_and_value(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "views.toml").write_text(text)
    with pytest.raises(ValueError, match=r"views\.toml.*" + message):
        view_recipes(tmp_path / "views.toml")
