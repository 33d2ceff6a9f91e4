"""A finished run that another goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coke.config.config import Config
from coke.model.optimizer import learning_rate
from coke.tools.runs.checkpoint import load_checkpoint
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.extension import extended_config
from coke.tools.training.train import train
from tests.support import command_line
from tests.support.equal_states import equal_states
from tests.support.metric_records import records

TIMES = ("images_per_second", "data_wait", "seconds", "peak_memory")


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def end(run: Path, epoch: int) -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / f"epoch-{epoch:04d}")


def learned(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in records(run)]


def test_the_rate_restarts_where_a_longer_run_would_be(tiny: Config) -> None:
    """4 of 8 epochs without warm-up are half of a cosine: half of the peak."""
    plain = tiny.changed(optimizer={"epochs": 4, "lr": 0.8, "warmup_epochs": 0.0})
    config = extended_config(plain, more=4)
    assert (config.optimizer.epochs, config.optimizer.first_epochs) == (8, 4)
    assert config.optimizer.restart_epochs == (4,) and config.optimizer.restart_lrs == (0.4,)
    rates = [learning_rate(config.optimizer, progress=p) for p in (0, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.8, 0.4, 0.4, 0.2, 0.0])
    again = extended_config(config, more=2, lr=0.1)
    assert again.optimizer.restart_epochs == (4, 8) and again.optimizer.restart_lrs == (0.4, 0.1)
    rates = [learning_rate(again.optimizer, progress=p) for p in (2, 4, 6, 8, 9, 10)]
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.1, 0.05, 0.0])
    with pytest.raises(ValueError, match="--epochs is 0; give how many epochs to add"):
        extended_config(plain, more=0)
    with pytest.raises(ValueError, match="give ascending numbers between 1 and epochs - 1"):
        plain.changed(optimizer={"restart_epochs": (4,), "restart_lrs": (0.1,)})
    with pytest.raises(ValueError, match="give a positive rate for each of restart_epochs"):
        plain.changed(optimizer={"restart_epochs": (2,)})


def test_views_and_alpha_stay_where_they_ended(tiny: Config) -> None:
    plain = tiny.changed(
        data={"views": 2, "start_size": 8}, loss={"alpha_warmup": 1.0}, optimizer={"epochs": 4}
    )
    config = extended_config(plain, more=6)
    assert [config.recipes_at(e)[0].size for e in range(5)] == [
        plain.recipes_at(e)[0].size for e in range(5)
    ]
    assert {config.recipes_at(e)[0].size for e in range(5, 11)} == {16}
    first = config.optimizer.first_epochs
    assert {config.loss.alpha_at(e, first) for e in range(5, 11)} == {config.loss.alpha}


@pytest.mark.slow
def test_a_run_and_its_extension_are_one_run_of_its_settings(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    """Weights, momentum, labels, duals, centers and records, bit for bit, also after a stop."""
    config = tiny.changed(
        data={"loader": "pil", "start_size": 8},
        optimizer={"epochs": 2},
        run={"checkpoint_every": 1},
    )
    old, new, whole = tmp_path / "old", tmp_path / "new", tmp_path / "whole"
    train(config, stripes, old, console=quiet)
    before = tree(old)
    longer = extended_config(RunFolder(old).config(), more=2)
    train(longer, stripes, new, extend=old, console=quiet)
    assert tree(old) == before
    assert equal_states(end(new, 2), end(old, 2))
    train(longer, stripes, whole, console=quiet)
    assert equal_states(end(new, 4), end(whole, 4))
    assert learned(new) == learned(whole)[3:] and learned(old) == learned(whole)[:3]
    origin = json.loads((new / "extended.json").read_text(encoding="utf-8"))
    assert origin["run"] == str(old.resolve()) and origin["epoch"] == 2
    assert len(origin["weights_sha256"]) == 64
    assert RunFolder(new).config() == longer
    assert train(longer, stripes, new, extend=old, resume="auto", console=quiet).epoch == 4


@pytest.mark.slow
def test_the_command_takes_the_settings_of_the_old_run(
    stripes: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny.changed(data={"loader": "pil"}, optimizer={"epochs": 1})
    old, new = tmp_path / "old", tmp_path / "new"
    train(config, stripes, old, console=quiet)
    command = ("train", stripes, "--extend", old)
    line = command_line.fails(monkeypatch, capsys, *command, "--epochs", 2, status=2)
    assert "--extend needs --out NEW" in line
    line = command_line.fails(monkeypatch, capsys, *command, "--out", new, status=2)
    assert "--epochs MORE" in line
    more = (*command, "--out", new, "--epochs", 1)
    line = command_line.fails(monkeypatch, capsys, *more, "--batch-size", 8, status=2)
    assert "data.batch_size: 16 != 8" in line and not new.exists()
    assert command_line.run(monkeypatch, *more, "--lr", 0.03) == 0
    found = RunFolder(new).config().optimizer
    assert (found.epochs, found.restart_epochs, found.restart_lrs) == (2, (1,), (0.03,))
    assert [line["epoch"] for line in records(new)] == [2]


@pytest.mark.slow
def test_what_cannot_be_extended_is_refused(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    config = tiny.changed(data={"loader": "pil"}, optimizer={"epochs": 1})
    old, new = tmp_path / "old", tmp_path / "new"
    train(config, stripes, old, console=quiet)
    longer = extended_config(config, more=1)

    def refused(message: str, given: Config = longer, **options: Any) -> None:
        options = {"data": stripes, "out": new, "extend": old, **options}
        with pytest.raises(ValueError, match=message):
            train(given, console=quiet, **options)
        assert not new.exists()

    refused("exists and is not empty", out=old)
    refused("is no training run", extend=stripes)
    refused("was trained on another data set", data=stripes / "test")
    refused("--extend keeps the settings of .* seed: 0 != 7.*--init-from", longer.__class__(
        **{**vars(longer), "seed": 7}))  # fmt: skip
    refused("--extend starts a new run, --resume continues one", resume=True)
    refused("--extend starts a new run, --init-from takes only weights", init_from=old)
    refused(
        "has 1 epochs, and the settings restart after", extended_config(config, more=2, epochs=2)
    )
    checkpoints = old / "checkpoints"
    (checkpoints / "epoch-0001").rename(tmp_path / "gone")
    refused("is not finished: --extend goes on where a run has ended; finish it with --resume")
