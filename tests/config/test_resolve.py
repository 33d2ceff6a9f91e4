"""Options, assignments and files are joined before they are checked."""

from __future__ import annotations

from pathlib import Path

from coke.config.resolve import resolve_config


def test_an_option_may_complete_an_assignment(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[data]\nbatch_size = 16\n", encoding="utf-8")
    config = resolve_config(
        "imagenet-1view",
        file,
        ["data.small_views=2", "optimizer.accumulate=20"],
        {"seed": None, "data": {"views": 2, "batch_size": 80}, "run": {"probe_every": None}},
    )
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
    assert (config.preset, config.optimizer.epochs, config.seed) == ("cifar10", 1, 2)
    assert (config.optimizer.lr, config.optimizer.momentum) == (3.0, 0.5)
