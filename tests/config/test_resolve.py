"""Options, assignments and files are joined before they are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.config.config import Config
from coke.config.resolve import resolve_config
from coke.config.wishes import Wishes


def test_an_option_may_complete_an_assignment(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[data]\nbatch_size = 16\n", encoding="utf-8")
    config = resolve_config(
        "imagenet-1view",
        file,
        ["data.small_views=2", "optimizer.accumulate=20"],
        {"seed": None, "data": {"views": 2, "batch_size": 80}, "run": {"probe_every": None}},
    )
    assert isinstance(config, Config)
    assert (config.data.views, config.data.small_views) == (2, 2)
    assert (config.data.batch_size, config.optimizer.accumulate) == (80, 20)
    assert (config.preset, config.seed) == ("imagenet-1view", 0)


def test_options_win_over_assignments_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        "preset = 'cifar10'\nseed = 3\n[optimizer]\nepochs = 3\nlr = 3.0\n", encoding="utf-8"
    )
    config = resolve_config(
        None,
        file,
        ["seed=2", "optimizer.epochs=2", "optimizer.momentum=0.5"],
        {"optimizer": {"epochs": 1}},
    )
    assert isinstance(config, Config)
    assert (config.preset, config.optimizer.epochs, config.seed) == ("cifar10", 1, 2)
    assert (config.optimizer.lr, config.optimizer.momentum) == (3.0, 0.5)


def test_nothing_and_auto_leave_the_rest_to_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("preset = 'auto'\n[data]\nbatch_size = 16\n", encoding="utf-8")
    given = {"optimizer": {"lr": 1.0}}
    for preset, toml in ((None, None), ("auto", None), (None, file)):
        wishes = resolve_config(preset, toml, ["seed=2"], given, hours=2.0)
        assert isinstance(wishes, Wishes) and wishes.hours == 2.0
        assert (wishes.given("seed"), wishes.given("optimizer.lr")) == (2, 1.0)
        assert wishes.given("data.batch_size") == (None if toml is None else 16)


def test_a_run_that_goes_on_has_chosen_already() -> None:
    saved = Config().changed(preset="auto", data={"batch_size": 48})
    for preset in (None, "auto"):
        assert resolve_config(preset, None, [], {}, saved) == saved
    with pytest.raises(ValueError, match="--hours 2 chooses the epochs of a new run"):
        resolve_config(None, None, [], {}, saved, hours=2)
    with pytest.raises(ValueError, match="--hours 2 chooses the epochs of a new run"):
        resolve_config("demo", None, [], {}, hours=2)
