"""Where metrics go: TensorBoard by default, Weights & Biases by option."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coke.config.config import Config
from coke.tools.training import learner as learner_module
from coke.tools.training.train import train


class FakeWandb(types.ModuleType):
    """Takes what is logged, as the real one would."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.exit_codes: list[int] = []

    def init(self, **options: Any) -> FakeWandb:
        self.inits.append(options)
        return self

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.logged.append((step, scalars))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


def test_tensorboard_gets_every_run_where_it_is_installed(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    pytest.importorskip("tensorboard", reason="needs coke[tensorboard]")
    train(tiny.changed(optimizer={"epochs": 1}), stripes, tmp_path / "run", console=quiet)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_without_tensorboard_the_run_says_so(
    stripes: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    console = Console(file=io.StringIO(), width=200)
    train(tiny.changed(optimizer={"epochs": 1}), stripes, tmp_path / "run", console=console)
    assert "TensorBoard is not installed" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not list((tmp_path / "run").glob("tensorboard/events*"))


def test_weights_and_biases_gets_every_epoch_of_one_run(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = tiny.changed(optimizer={"epochs": 2}, data={"loader": "pil"})

    def dies(*_: Any, **__: Any) -> None:
        raise OSError("the machine fails")

    with monkeypatch.context() as patch:
        patch.setattr(learner_module, "train_step", dies)
        with pytest.raises(OSError, match="the machine fails"):
            train(config, stripes, tmp_path / "run", wandb="project", console=quiet)
    train(config, stripes, tmp_path / "run", resume=True, wandb="project", console=quiet)
    first, second = wandb.inits
    assert first["project"] == "project" and first["name"] == "run"
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert first["config"]["model"]["width"] == 8
    assert [epoch for epoch, _ in wandb.logged] == [0, 1, 2]
    assert "train/loss" in wandb.logged[1][1] and "head1/violation" in wandb.logged[1][1]
    assert wandb.exit_codes == [1, 0]


def test_a_missing_package_is_told_before_the_run(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # makes the import fail
    with pytest.raises(ValueError, match=r"--wandb needs .* `pip install 'coke\[wandb\]'`"):
        train(tiny, stripes, tmp_path / "run", wandb="project", console=quiet)
    assert not (tmp_path / "run").exists()
