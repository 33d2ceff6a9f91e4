"""What a run folder remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint
from coke.tools.runs.run_folder import RunFolder


def folder(path: Path, *moments: CheckpointName) -> RunFolder:
    run = RunFolder(path)
    for moment in moments:
        save_checkpoint(run.checkpoints, moment, {"epoch": moment.epoch, "step": moment.step})
    return run


def test_evaluation_takes_the_end_of_an_epoch_and_resuming_the_newest_step(tmp_path: Path) -> None:
    run = folder(tmp_path, CheckpointName(epoch=0, step=2))
    assert run.state()["step"] == 2, "there is nothing else yet"
    folder(
        tmp_path, CheckpointName(epoch=0), CheckpointName(epoch=1), CheckpointName(epoch=2, step=9)
    )
    assert run.state()["epoch"] == 1 and run.state(0)["epoch"] == 0
    assert run.newest_state()["step"] == 9
    with pytest.raises(ValueError, match="keeps no checkpoint of epoch 2, only of 0, 1"):
        run.state(2)
    assert not run.is_complete(2) and not run.is_complete(1)
    folder(tmp_path, CheckpointName(epoch=2))
    assert run.is_complete(2) and not run.is_complete(3)


def record(epoch: int, probe: float | None = None, linear: float | None = None) -> dict[str, Any]:
    return {"epoch": epoch, "probe": probe, "linear_probe": linear}


def test_the_best_probe_is_the_latest_of_equals(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.best() is None and run.best_epoch() is None
    for epoch, probe in enumerate((50.0, None, 62.5, 61.0, 62.5, None)):
        run.append_metrics(record(epoch, probe))
    assert run.best() == (4, 62.5) and run.best_epoch() == 4
    run.keep_metrics_before(4)
    assert run.best() == (2, 62.5)
    assert [r["epoch"] for r in run.records()] == [0, 1, 2, 3]


def test_the_best_probe_by_either_figure(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.append_metrics({"epoch": 0, "probe": 70.0})  # as written before there was a linear one
    assert run.best("linear") is None and run.best_epoch("linear") is None
    for epoch, knn, linear in ((1, 50.0, 60.0), (2, 55.0, 65.0), (3, 60.0, 62.5)):
        run.append_metrics(record(epoch, knn, linear))
    assert run.best("knn") == (0, 70.0) and run.best_epoch("knn") == 0
    assert run.best("linear") == (2, 65.0) and run.best_epoch("linear") == 2


@pytest.mark.parametrize("torn", ['{"epoch": 1, "pro', "[1]", "", "\x00\x00"])
def test_an_incomplete_line_is_left_out(tmp_path: Path, torn: str) -> None:
    run = RunFolder(tmp_path)
    run.append_metrics(record(0))
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(torn)
    assert run.records() == [record(0)]
    run.keep_metrics_before(5)
    run.append_metrics(record(1))
    assert run.records() == [record(0), record(1)]
