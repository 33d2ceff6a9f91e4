"""Two views and multi-crop through the whole loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.config.config import Config
from coke.model.coke_model import CoKe
from coke.tools.evaluation.representations import load_run
from coke.tools.runs.checkpoint import CheckpointName, list_checkpoints, load_checkpoint
from coke.tools.runs.checkpoint_writer import CheckpointWriter
from coke.tools.training import learner as learner_module
from coke.tools.training import step as train_step_module
from coke.tools.training.train import train
from tests.support.equal_states import equal_states
from tests.support.metric_records import records


@pytest.fixture
def multi_crop(tiny: Config) -> Config:
    """Two views that grow from 8 to 16 pixels, two small ones, a predictor, a moving alpha."""
    return replace(tiny, model=replace(tiny.model, predictor_hidden=8)).changed(
        data={
            "views": 2,
            "small_views": 2,
            "start_size": 8,
            "small_view": replace(tiny.data.view, size=8),
            "second_view": replace(tiny.data.view, solarize_p=0.2),
        },
        loss={"alpha_warmup": 1.0, "beta": 0.5},
    )


@pytest.mark.slow
def test_what_each_epoch_feeds_the_model(
    stripes: Path,
    multi_crop: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[list[tuple[int, int]]] = []
    forward = CoKe.forward

    def spy(self: CoKe, views: Sequence[Tensor]) -> Any:
        fed.append([(len(view), view.shape[-1]) for view in views])
        return forward(self, views)

    monkeypatch.setattr(CoKe, "forward", spy)
    train(multi_crop, stripes, tmp_path / "run", console=quiet)
    assert len(fed) == 16
    assert fed[0] == [(16, 8), (16, 8)], "the scan takes large views only"
    assert fed[4] == [(16, 8), (16, 8), (32, 8)], "small views are one pass"
    assert fed[7] == [(12, 8), (12, 8), (24, 8)], "the ragged batch"
    assert fed[-4] == [(16, 12), (16, 12), (32, 8)], "large views have grown"
    found = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open(encoding="utf-8")
    ]
    assert [r["epoch"] for r in found] == [0, 1, 2, 3]
    config, _, epoch = load_run(tmp_path / "run")
    assert (config, epoch) == (multi_crop, 3)


@pytest.mark.slow
def test_the_two_large_views_differ_and_are_of_the_same_images(
    stripes: Path, multi_crop: Config, tmp_path: Path, quiet: Console, monkeypatch: Any
) -> None:
    """Without anything random in the recipes, all views of an image are one picture."""
    still = replace(multi_crop.data.view.evaluation(), size=16)
    config = multi_crop.changed(
        optimizer={"epochs": 1},
        data={"start_size": 0, "small_views": 0, "view": still, "second_view": still},
    )
    views: list[list[Tensor]] = []
    step = train_step_module.train_step

    def spy(model: Any, optimizer: Any, given: list[Tensor], *rest: Any, **named: Any) -> Any:
        views.append(given)
        return step(model, optimizer, given, *rest, **named)

    monkeypatch.setattr(learner_module, "train_step", spy)
    train(config, stripes, tmp_path / "still", console=quiet)
    assert all(torch.equal(first, second) for first, second in views)
    views.clear()
    moving = config.changed(
        data={"view": multi_crop.data.view, "second_view": multi_crop.data.view}
    )
    train(moving, stripes, tmp_path / "moving", console=quiet)
    assert not any(torch.equal(first, second) for first, second in views)


@pytest.mark.slow
def test_resuming_multi_crop_gives_the_uninterrupted_run(
    stripes: Path,
    multi_crop: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(multi_crop, stripes, tmp_path / "whole", console=quiet)

    save = CheckpointWriter.save

    def save_and_die(self: CheckpointWriter, moment: CheckpointName, *args: Any) -> None:
        save(self, moment, *args)
        self.wait()
        if moment == CheckpointName(epoch=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(multi_crop, stripes, tmp_path / "stopped", console=quiet)
    train(multi_crop, stripes, tmp_path / "stopped", resume=True, console=quiet)
    whole, stopped = (
        load_checkpoint(list_checkpoints(tmp_path / run / "checkpoints")[-1])
        for run in ("whole", "stopped")
    )
    assert equal_states(whole, stopped)
    losses = [[r["loss"] for r in records(tmp_path / run)] for run in ("whole", "stopped")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_other_views_are_refused_on_resume(
    stripes: Path, multi_crop: Config, tmp_path: Path, quiet: Console
) -> None:
    train(multi_crop.changed(optimizer={"epochs": 1}), stripes, tmp_path / "run", console=quiet)
    fewer = multi_crop.changed(optimizer={"epochs": 1}, data={"small_views": 1})
    with pytest.raises(ValueError, match="small_views: 2 != 1"):
        train(fewer, stripes, tmp_path / "run", resume=True, console=quiet)
