"""Options, assignments and files that need each other are taken together."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.config.resolve import resolve_config


def test_an_option_may_complete_an_assignment(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("batch_size = 16\n")
    config = resolve_config(
        "imagenet-1view",
        file,
        ["small_views=2", "accumulate=20"],
        {"views": 2, "batch_size": 80, "seed": None},
    )
    assert (config.views, config.small_views) == (2, 2)
    assert (config.batch_size, config.accumulate) == (80, 20)
    assert (config.preset, config.seed) == ("imagenet-1view", 0)
    with pytest.raises(ValueError, match="small_views is 2 with 1 view"):
        resolve_config("imagenet-1view", file, ["small_views=2"], {})


def test_options_win_over_assignments_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("preset = 'cifar10'\nepochs = 3\nseed = 3\n[optimizer]\nlr = 3.0\n")
    config = resolve_config(
        None, file, ["seed=2", "epochs=2", "optimizer.momentum=0.5"], {"epochs": 1}
    )
    assert (config.preset, config.epochs, config.seed) == ("cifar10", 1, 2)
    assert (config.optimizer.lr, config.optimizer.momentum) == (3.0, 0.5)
