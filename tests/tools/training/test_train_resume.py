"""A run that was ended at any instant goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from coke.clustering import Clustering
from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.config.overrides import to_toml
from coke.model.coke_model import CoKe, build_model
from coke.model.loss import views_loss
from coke.tools.runs.checkpoint import CheckpointName, list_checkpoints, load_checkpoint
from coke.tools.runs.checkpoint_writer import CheckpointWriter
from coke.tools.runs.interruption import STOPPED_STATUS, RunStopped
from coke.tools.runs.run_folder import RunFolder
from coke.tools.runs.run_lock import read_status
from coke.tools.training import learner as learner_module
from coke.tools.training import step as train_step_module
from coke.tools.training.train import train
from tests.support.equal_states import equal_states
from tests.support.patience import PATIENCE_S

STEPS = 4  # of an epoch: three batches of 16 and one of 12


@pytest.fixture
def varied(tiny: Config) -> Config:
    """A run in which everything moves: predictor, view size, averaged labels from epoch 1 on."""
    return replace(
        tiny,
        model=replace(tiny.model, predictor_hidden=8),
        clustering=replace(tiny.clustering, first_stage_epochs=1),
    ).changed(optimizer={"epochs": 2}, data={"loader": "pil", "start_size": 8}, loss={"beta": 0.5})


def newest(run: Path) -> dict[str, Any]:
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])


def learned(run: Path) -> list[tuple[Any, ...]]:
    """The records of a run without their durations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    keys = ("epoch", "loss", "loss_over_chance", "lr", "heads", "skipped_steps", "probe")
    ranks = ("linear_probe", "effective_rank", "projected_rank")
    return [tuple(json.loads(line)[key] for key in keys + ranks) for line in lines]


def with_dropout(config: ModelConfig, seed: int) -> CoKe:
    """A model that draws numbers: what layers draw is part of what must be the same."""
    model = build_model(config, seed)
    model.projector = nn.Sequential(nn.Dropout(0.1), model.projector)
    return model


VIT: dict[str, Any] = {
    "model": {"backbone": "vit", "size": "tiny", "patch": 4, "image_size": 16, "drop_path": 0.3},
    "optimizer": {"name": "adamw", "lr": 0.01, "layer_decay": 0.8, "clip_norm": 0.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, VIT], ids=["resnet", "vit"])
def test_resuming_after_any_step_gives_the_uninterrupted_run(
    stripes: Path,
    varied: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
    small_vit: None,
    changes: dict[str, Any],
) -> None:
    """A copy of the run folder after each save is what a kill at that instant leaves."""
    monkeypatch.setattr(learner_module, "build_model", with_dropout)
    config = varied.changed(run={"checkpoint_every": 1}, **changes)
    whole, left = tmp_path / "whole", tmp_path / "left"
    orders: dict[str, list[list[int]]] = {}
    step = Clustering.step

    def spy_step(
        self: Clustering, features: Tensor, ids: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        orders.setdefault(current, []).append(ids.tolist())
        return step(self, features, ids, valid)

    save = CheckpointWriter.save

    def save_and_copy(self: CheckpointWriter, moment: CheckpointName, *args: Any) -> None:
        save(self, moment, *args)
        self.wait()
        shutil.copytree(whole, left / moment.folder_name, symlinks=True)

    monkeypatch.setattr(Clustering, "step", spy_step)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save_and_copy)
        current = "whole"
        train(config, stripes, whole, console=quiet)
    final = newest(whole)
    stops = sorted(left.iterdir(), key=CheckpointName.of)
    assert len(stops) == STEPS * 3
    for taken, run in enumerate(stops[:-1], start=1):
        current = run.name
        train(config, stripes, run, resume=True, console=quiet)
        assert equal_states(newest(run), final), run.name
        assert learned(run) == learned(whole), run.name
        assert orders[current] == orders["whole"][taken:], run.name


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_run_to_go_on_with(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """A kill -9 at an arbitrary point of an epoch, with the real loader."""
    config = tiny.changed(
        run={"checkpoint_every": 1}, optimizer={"epochs": 2}, data={"start_size": 8}
    )
    train(config, stripes, tmp_path / "whole", console=quiet)
    run = tmp_path / "killed"
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    command = [sys.executable, "-m", "coke", "train", str(stripes), "--out", str(run)]
    command += ["--config", str(tmp_path / "config.toml"), "--resume", "auto"]
    further = CheckpointName(epoch=1, step=STEPS + 2)
    one_thread = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # sums in the order of this process
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_thread) as process:
        while process.poll() is None and not _has_reached(run, further):
            time.sleep(0.01)
        process.kill()
    killed = read_status(run)
    assert killed is not None and killed.state == "running"
    train(config, stripes, run, resume=True, console=quiet)
    assert equal_states(newest(run), newest(tmp_path / "whole"))
    assert learned(run) == learned(tmp_path / "whole")


def _has_reached(run: Path, moment: CheckpointName) -> bool:
    found = list_checkpoints(run / "checkpoints")
    return bool(found) and not CheckpointName.of(found[-1]) < moment


def signalling(step: int, number: int) -> Callable[..., Any]:
    """A training step during whose given call this process gets a signal."""
    taken = iter(range(1000))

    def step_and_signal(*args: Any, **kwargs: Any) -> Any:
        if next(taken) == step:
            os.kill(os.getpid(), number)
        return train_step_module.train_step(*args, **kwargs)

    return step_and_signal


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS])  # within, at the end of an epoch
def test_a_signal_saves_at_the_next_step(
    stripes: Path,
    varied: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    step: int,
) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "train_step", signalling(step, number))
        with pytest.raises(RunStopped, match=rf"SIG\w+ in epoch {1 + step // STEPS}, "):
            train(varied, stripes, run, console=quiet)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    taken = STEPS + step + 1
    ended = CheckpointName(epoch=1) if taken % STEPS == 0 else None
    expected = ended or CheckpointName(epoch=taken // STEPS, step=taken)
    assert CheckpointName.of(RunFolder(run).newest_checkpoint()) == expected
    status = read_status(run)
    assert status is not None and status.state == "stopped" and "--resume" in status.message
    train(varied, stripes, run, resume=True, console=quiet)
    train(varied, stripes, tmp_path / "whole", console=quiet)
    assert equal_states(newest(run), newest(tmp_path / "whole"))
    assert learned(run) == learned(tmp_path / "whole")


def test_a_signal_at_the_last_step_finds_the_run_complete(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = varied.changed(optimizer={"epochs": 1})
    monkeypatch.setattr(learner_module, "train_step", signalling(STEPS - 1, signal.SIGTERM))
    assert train(config, stripes, tmp_path / "run", console=quiet).epoch == 1


CHILD = """
import time
from coke import cli
from coke.tools.training import learner as learner_module
real = learner_module.train_step
def slow(*args, **kwargs):
    print("step", flush=True)
    time.sleep(0.1)
    return real(*args, **kwargs)
learner_module.train_step = slow
cli.main()
"""


@pytest.mark.slow
def test_the_process_ends_with_a_status_of_its_own(
    stripes: Path, varied: Config, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(
        to_toml(varied.changed(optimizer={"epochs": 50})), encoding="utf-8"
    )
    options = ["--config", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-c", CHILD, "train", str(stripes), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_for_a_step(process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == STOPPED_STATUS == 75
    assert "stopped: SIGTERM in epoch" in errors and "Traceback" not in errors


def _wait_for_a_step(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "step":
            return
    raise AssertionError(f"ended with status {process.wait()} before a step")


def test_auto_starts_goes_on_and_finds_complete(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def dies(*_: Any, **__: Any) -> None:
        raise OSError("the machine fails")

    with monkeypatch.context() as patch:  # in the scan, before anything is saved
        patch.setattr(learner_module, "scan_batch", dies)
        for _ in range(2):
            with pytest.raises(OSError, match="the machine fails"):
                train(varied, stripes, run, resume="auto", console=quiet)
    with pytest.raises(ValueError, match=r"has no checkpoint.*--resume auto"):
        train(varied, stripes, run, resume=True, console=quiet)
    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "train_step", dies)
        with pytest.raises(OSError, match="the machine fails"):
            train(varied, stripes, run, resume="auto", console=quiet)
    status = read_status(run)
    assert status is not None and status.state == "failed" and "machine fails" in status.message
    with pytest.raises(ValueError, match=r"seed: 0 != 1"):
        train(replace(varied, seed=1), stripes, run, resume="auto", console=quiet)
    last = train(varied, stripes, run, resume="auto", console=quiet)
    assert train(varied, stripes, run, resume="auto", console=quiet) == last
    train(varied, stripes, tmp_path / "whole", console=quiet)
    assert learned(run) == learned(tmp_path / "whole")


@pytest.mark.parametrize("left", [["lock"], ["lock", "status.json", "data.json", "checkpoints/"]])
def test_auto_starts_where_a_process_ended_before_its_run_had_begun(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, left: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in left:
        (run / name).mkdir() if name.endswith("/") else (run / name).write_text(
            "", encoding="utf-8"
        )
    with pytest.raises(ValueError, match="exists and is not empty"):
        train(varied.changed(optimizer={"epochs": 1}), stripes, run, console=quiet)
    assert (
        train(
            varied.changed(optimizer={"epochs": 1}), stripes, run, resume="auto", console=quiet
        ).epoch
        == 1
    )


def test_nothing_of_others_is_touched(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("text", encoding="utf-8")
    for resume in (False, "auto"):
        with pytest.raises(ValueError, match="exists and is not empty"):
            train(varied, stripes, tmp_path / "thesis", resume=resume, console=quiet)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    with pytest.raises(ValueError, match="resume is 'maybe'; give True, False or 'auto'"):
        train(varied, stripes, tmp_path / "run", resume="maybe", console=quiet)


@pytest.mark.slow
def test_a_torn_line_of_metrics_does_not_stop_a_resume(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    save = CheckpointWriter.save

    def die_in_epoch_2(self: CheckpointWriter, moment: CheckpointName, *args: Any) -> None:
        if moment.epoch == 2:
            raise OSError("power cut")
        save(self, moment, *args)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", die_in_epoch_2)
        with pytest.raises(OSError, match="power cut"):
            train(varied, stripes, run, console=quiet)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 1, "lo')
    train(varied, stripes, run, resume=True, console=quiet)
    assert [record[0] for record in learned(run)] == [0, 1, 2]


@pytest.mark.slow
def test_a_step_that_is_not_finite_moves_nothing(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images with NaN in one step of the scan and in a later one count as not seen."""
    config = varied.changed(run={"checkpoint_every": 1, "keep_checkpoints": 100})
    states: list[dict[str, Any]] = []
    poisoned = (2, STEPS + 1)
    taken = 0

    def poison(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken - 1 in poisoned:
                views = next(a for a in args if isinstance(a, list) and a[0].ndim == 4)
                views[0][3, 1, 0, 0] = float("nan")
            return real(*args, **kwargs)

        return step

    save = CheckpointWriter.save

    def save_and_note(
        self: CheckpointWriter, moment: CheckpointName, state: Any, *args: Any
    ) -> None:
        save(self, moment, state, *args)
        self.wait()
        path = RunFolder(run).checkpoints / moment.folder_name
        states.append(load_checkpoint(path))

    run = tmp_path / "run"
    monkeypatch.setattr(CheckpointWriter, "save", save_and_note)
    for name in ("scan_batch", "train_step"):
        monkeypatch.setattr(learner_module, name, poison(getattr(learner_module, name)))
    train(config, stripes, run, console=quiet)
    for step in poisoned:
        before, after = states[step - 1], states[step]
        for part in ("model", "clustering"):
            assert equal_states(before[part], after[part]), (step, part)
        assert equal_states(before["optimizer"]["state"], after["optimizer"]["state"]), step
        assert after["progress"]["loader"]["position"] == 16 * (step % STEPS + 1)
    assert [record[5] for record in learned(run)] == [1, 1, 0]
    seen = states[STEPS - 1]["clustering"]["label_store"]["labels"]
    assert int((seen == 255).sum()) == 2 * 16, "of the scan's skipped images no label is known"
    final = states[-1]["model"]
    assert all(torch.isfinite(value).all() for value in final.values())


def test_too_many_bad_steps_in_a_row_end_the_run(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = varied.changed(run={"max_bad_steps": 3})

    def diverged(*args: Any, **kwargs: Any) -> Tensor:
        return views_loss(*args, **kwargs) * float("nan")

    monkeypatch.setattr(train_step_module, "views_loss", diverged)
    with pytest.raises(ValueError, match=r"3 steps in a row were skipped, .* step 2 of epoch 1 .*"):
        train(config, stripes, tmp_path / "run", console=quiet)
    names = [p.name for p in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["epoch-0000"]


def _refuse(*_: Any) -> Tensor:
    return torch.tensor(False)


def test_bad_steps_are_counted_across_a_resume(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = varied.changed(run={"max_bad_steps": 3, "checkpoint_every": 1})
    run = tmp_path / "run"
    monkeypatch.setattr(train_step_module, "finite_gradients", _refuse)
    for further in ("2 of epoch 1", "2 of epoch 1"):
        with pytest.raises(ValueError, match=f"3 steps in a row .* step {further}"):
            train(config, stripes, run, resume="auto", console=quiet)
    assert CheckpointName.of(RunFolder(run).newest_checkpoint()) == CheckpointName(
        epoch=1, step=STEPS + 2
    )


def test_two_processes_do_not_train_in_one_folder(
    stripes: Path, varied: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    real = train_step_module.train_step
    refused: list[str] = []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not refused:
            for resume in (True, "auto", False):
                with pytest.raises(ValueError, match="in use: process") as error:
                    train(varied, stripes, run, resume=resume, console=quiet)
                refused.append(str(error.value))
        return real(*args, **kwargs)

    monkeypatch.setattr(learner_module, "train_step", meanwhile)
    assert train(varied, stripes, run, console=quiet).epoch == varied.optimizer.epochs
    assert f"process {os.getpid()} on " in refused[0] and len(refused) == 3
