"""Settings as text: TOML, assignments, differences."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from coke.config.config import Config
from coke.config.overrides import differences, layered, load_toml, parse_assignments, with_settings


def test_assignments_are_typed_as_toml_and_nested() -> None:
    settings = parse_assignments(
        ["model.depth=18", "optimizer.lr=1", "clustering.n_clusters=[5, 7]", "data.loader=pil"]
    )
    config = with_settings(Config(), settings)
    assert config.model.depth == 18
    assert config.optimizer.lr == 1.0 and isinstance(config.optimizer.lr, float)
    assert config.clustering.n_clusters == (5, 7)
    assert config.data.loader == "pil"


def test_layers_are_joined_key_by_key_before_they_are_checked() -> None:
    layers: list[dict[str, Any]] = [
        {"data": {"views": 1}, "model": {"depth": 18, "width": 8}},
        {"data": {"small_views": 2}, "model": {"depth": 34}},
        {"data": {"views": 2}},
    ]
    whole = layered(layers)
    assert whole == {
        "data": {"views": 2, "small_views": 2},
        "model": {"depth": 34, "width": 8},
    }
    assert layers[0]["model"] == {"depth": 18, "width": 8}
    assert with_settings(Config(), whole).data.small_views == 2
    assert layered([{"model": {"depth": 18}}, {"model": 3}]) == {"model": 3}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.dept=18", r"unknown config key 'model\.dept'; valid keys: backbone, depth, width"),
        (
            "epoch=3",
            "unknown config key 'epoch'; valid keys: preset, seed, data.views, data.small_views",
        ),
        ("optimizer.epochs=three", "config key 'optimizer.epochs' is 'three'; it must be int"),
        ("optimizer.epochs=true", "config key 'optimizer.epochs' is True; it must be int"),
        ("data.drop_ragged=1", "config key 'data.drop_ragged' is 1; it must be bool"),
        ("data.view.scale=[0.1]", r"config key 'data.view\.scale' is \[0\.1\]; it must be tuple"),
        ("clustering.n_clusters=[5, 2.5]", "is 2.5; it must be int"),
        ("model=3", "config key 'model' is a section, not 3"),
        ("epochs", "has no '='"),
        ("data.views=0", "views is 0; train on 1 large view or more"),
        ("optimizer.epochs=0", "epochs is 0; it must be at least 1"),
        ("run.checkpoint_every=-1", "checkpoint_every is -1; give a number, or 0 for never"),
        ("run.probe_every=-1", "probe_every is -1"),
        ("run.keep_best=top1", "run.keep_best is 'top1'; choose one of knn, linear"),
        ("run.probe_images=1", "probe_images is 1; a probe needs at least 2"),
        ("run.max_bad_steps=0", "max_bad_steps is 0; it must be at least 1"),
        ("data.order=random", "order is 'random'; choose one of global, blocks"),
        ("data.window=0", "window is 0; give a number of containers"),
        ("machine.cache_gb=0", "cache_gb is 0.0; give a positive number of gigabytes"),
        ("loss.temperature=0.0", "temperature is 0.0; it must be positive"),
        ("loss.beta=2", "beta is 2.0; it is a weight between 0 and 1"),
        ("data.view.size=0", "view size is 0"),
        ("optimizer.accumulate=0", "accumulate is 0; it must be at least 1"),
        ("optimizer.accumulate=3", "accumulate is 3 and data.batch_size 1024: give a divisor"),
        ("optimizer.accumulate=1024", "at least 2 images in each piece"),
        ("machine.memory_budget=16G", "'16G' is no size in bytes; write 16GiB"),
        ("machine.rank_timeout=0", "rank_timeout is 0.0; give seconds"),
        ("machine.rank_timeout=nan", "rank_timeout' is nan; it must be a finite number"),
        ("optimizer.lr=inf", r"'optimizer\.lr' is inf; it must be a finite number"),
        ("optimizer.momentum=2", "momentum is 2.0"),
        ("clustering.dual_lr=-3", "dual_lr is -3.0; give 0 or more"),
        ("clustering.first_stage_epochs=0", "first_stage_epochs is 0; it counts the scan"),
    ],
)
def test_bad_settings_name_the_key_and_the_value(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_settings(Config(), parse_assignments([assignment]))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml cannot be read: No such file"):
        load_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = ", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.toml is not valid TOML"):
        load_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 4}, "batch_size is data.batch_size"),
        ({"lr": 0.1}, "lr is optimizer.lr"),
        (
            {"view": {"size": 32, "flip_p": 0}},
            "view.size is data.view.size, view.flip_p is data.vi",
        ),
        ({"data": {"views": 2}, "epochs": 3, "threads": 1}, "epochs is optimizer.epochs, threads"),
    ],
)
def test_a_name_without_its_section_is_answered_with_the_section(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="config keys are in sections now: ") as refused:
        with_settings(Config(), settings)
    assert message in str(refused.value)


def test_every_key_belongs_to_one_section_only() -> None:
    """No setting's name occurs in two sections, so an old flat name has one meaning."""
    keys = [key for section in fields(Config()) for key in _fields_of(section.name)]
    assert len(keys) == len(set(keys)) > 40


def _fields_of(section: str) -> list[str]:
    value = getattr(Config(), section)
    return [f.name for f in fields(value)] if is_dataclass(value) else []


def test_differences_name_both_values() -> None:
    a = Config()
    b = replace(a, model=replace(a.model, depth=18)).changed(optimizer={"epochs": 7})
    assert differences(a, b) == ["model.depth: 50 != 18", "optimizer.epochs: 200 != 7"]
    assert differences(a, Config()) == []
