"""Checkpoints saved in the background: the state of that step, errors raised, exit delayed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from coke.tools.runs import checkpoint_writer
from coke.tools.runs.checkpoint import (
    CheckpointName,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from coke.tools.runs.checkpoint_writer import CheckpointWriter, on_cpu


class Gate:
    """Blocks a save until the test opens the gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.at_once = 0
        self.most_at_once = 0
        monkeypatch.setattr(checkpoint_writer, "save_checkpoint", self._save)

    def _save(self, folder: Path, moment: CheckpointName, state: dict[str, Any]) -> Path:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.entered.set()
        assert self.open.wait(30)
        self.at_once -= 1
        return save_checkpoint(folder, moment, state)


def end(epoch: int) -> CheckpointName:
    return CheckpointName(epoch=epoch)


def test_saves_the_state_as_it_was_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    weights = torch.zeros(3)
    with CheckpointWriter(tmp_path, keep=2) as writer:
        writer.save(end(0), {"weights": weights, "epoch": 0})
        assert gate.entered.wait(30)
        assert list_checkpoints(tmp_path) == [], "an incomplete one is never shown"
        weights += 1
        gate.open.set()
    (path,) = list_checkpoints(tmp_path)
    assert load_checkpoint(path)["weights"].tolist() == [0, 0, 0]


def test_one_save_at_a_time_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    threading.Timer(0.2, gate.open.set).start()
    with CheckpointWriter(tmp_path, keep=9) as writer:
        for epoch in range(4):
            writer.save(end(epoch), {"epoch": epoch})
    assert gate.most_at_once == 1
    assert [load_checkpoint(p)["epoch"] for p in list_checkpoints(tmp_path)] == [0, 1, 2, 3]


def test_an_error_surfaces_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise ValueError("checkpoint could not be written")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", refuses)
    writer = CheckpointWriter(tmp_path, keep=2)
    for surface in (writer.raise_error, writer.wait, lambda: writer.save(end(1), {})):
        writer.save(end(0), {})
        assert writer._saving is not None
        while not writer._saving.done():
            pass
        with pytest.raises(ValueError, match="could not be written"):
            surface()
        writer.raise_error()  # the error is raised only once
    with pytest.raises(ValueError, match="could not be written"), writer:
        writer.save(end(2), {})


def test_what_ended_the_run_comes_before_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise ValueError("disk full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", refuses)

    def run() -> None:
        with CheckpointWriter(tmp_path, keep=2) as writer:
            writer.save(end(0), {})
            raise KeyError("cause")

    with pytest.raises(KeyError, match="cause") as raised:
        run()
    assert raised.value.__notes__ == ["disk full"]


def test_points_to_the_best_and_keeps_it(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=1) as writer:
        for epoch, best in ((0, 0), (1, 1), (2, 1), (3, 1)):
            writer.save(end(epoch), {"epoch": epoch}, best)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["epoch-0001", "epoch-0003"]
    assert load_checkpoint(tmp_path / "best")["epoch"] == 1
    assert load_checkpoint(tmp_path / "latest")["epoch"] == 3


def test_a_copy_shares_no_memory_and_keeps_the_nesting() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {"a": [base, (base[:, 1], None)], "b": {"c": base.T, "n": 3}}
    copied = on_cpu(state)
    base.zero_()
    assert copied["a"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copied["a"][1][0].tolist() == [1, 4] and copied["a"][1][1] is None
    assert copied["b"]["c"].tolist() == [[0, 3], [1, 4], [2, 5]] and copied["b"]["n"] == 3
