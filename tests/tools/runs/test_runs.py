"""``coke runs``: states, epochs, loss, best probe."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coke.config.config import Config
from coke.tools.runs.interruption import RunStopped
from coke.tools.runs.run_lock import RunLock
from coke.tools.runs.runs import runs
from coke.tools.training import learner as learner_module
from coke.tools.training.train import train


def shown(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    runs(folder, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_lists_the_state_of_each_run(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.changed(optimizer={"epochs": 1}, data={"loader": "pil"}, run={"probe_every": 1})
    root = tmp_path / "runs"
    train(config, stripes, root / "done", console=quiet)

    def ends_with(error: Exception) -> Any:
        def step(*_: Any, **__: Any) -> None:
            raise error

        return step

    for name, error in (("halted", RunStopped("by SIGTERM")), ("broken", OSError("disk gone"))):
        with monkeypatch.context() as patch:
            patch.setattr(learner_module, "train_step", ends_with(error))
            with pytest.raises(type(error)):
                train(config, stripes, root / "deep" / name, console=quiet)
    os.utime(root / "done" / "metrics.jsonl", (time.time() + 9, time.time() + 9))
    found = runs(root, console=quiet)
    assert [(r.path.name, r.state) for r in found] == [
        ("halted", "stopped"),
        ("broken", "failed"),
        ("done", "complete"),
    ]
    done, broken = found[-1], found[1]
    assert (done.epoch, done.epochs) == (1, 1) and done.loss is not None
    assert done.probe is not None and done.probe[0] in (0, 1) and 0 <= done.probe[1] <= 100
    assert done.linear_probe is not None and 0 <= done.linear_probe[1] <= 100
    assert (broken.epoch, broken.loss, broken.message) == (0, None, "disk gone")
    text = shown(root)
    for word in (
        "deep/halted",
        "stopped",
        "1/1",
        "0/1",
        f"{done.probe[1]:.2f} ({done.probe[0]})",
        f"{done.linear_probe[1]:.2f} ({done.linear_probe[0]})",
        "disk gone",
    ):
        assert word in text, text
    (root / "done" / "status.json").unlink()  # as of a version that wrote none
    assert runs(root / "done", console=quiet)[0].state == "complete"
    with RunLock(root / "done"):
        assert "running" in shown(root / "done")


def test_a_folder_without_runs_is_refused(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(ValueError, match="nowhere is no folder"):
        runs(tmp_path / "nowhere", console=quiet)
    with pytest.raises(ValueError, match="holds no runs"):
        runs(tmp_path, console=quiet)


def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    config = tiny.changed(optimizer={"epochs": 1}, data={"loader": "pil"})
    for name in ("good", "other"):
        train(config, stripes, tmp_path / name, console=quiet)
    (tmp_path / "other" / "config.toml").write_text("foo = 1\n", encoding="utf-8")
    found = {run.path.name: run for run in runs(tmp_path, console=quiet)}
    assert (found["good"].state, found["other"].state) == ("complete", "unreadable")
    assert (found["other"].epoch, found["other"].epochs) == (1, None)
    text = shown(tmp_path)
    assert "1/-" in text and "unknown config key 'foo'" in text


def test_a_complete_run_without_its_metrics_says_so(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    config = tiny.changed(optimizer={"epochs": 1}, data={"loader": "pil"})
    run = tmp_path / "run"
    record = train(config, stripes, run, console=quiet)
    assert train(config, stripes, run, resume="auto", console=quiet) == record
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"is complete, but .*metrics\.jsonl is missing"):
        train(config, stripes, run, resume="auto", console=quiet)
