"""A run goes on with another number of ranks: 2, then 1, then 2 again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.tools.runs.checkpoint import CheckpointName, list_checkpoints, load_checkpoint
from coke.tools.runs.interruption import RunStopped
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training import learner as learner_module
from coke.tools.training.train import train
from tests.support.equal_states import equal_states
from tests.support.patience import PATIENCE_S
from tests.support.ranks import free_port, run_ranks, saved, take_place
from tests.support.tiny_config import gentle_config, tiny_config

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
STEPS, LIMIT_S = 4, 2 * PATIENCE_S


def watch() -> tuple[list[list[int]], list[int]]:
    """The ids of every step from now on, and a list of steps in which to signal this process."""
    ids: list[list[int]] = []
    signal_at: list[int] = []
    step, training = Clustering.step, learner_module.train_step  # type: ignore[attr-defined]

    def noting(
        self: Clustering, features: Tensor, ids_B: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        ids.append(ids_B.tolist())
        return step(self, features, ids_B, valid)

    def signalling(*args: Any, **kwargs: Any) -> Any:
        if len(ids) in signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return training(*args, **kwargs)

    Clustering.step = noting  # type: ignore[assignment, method-assign]
    learner_module.train_step = signalling  # type: ignore[attr-defined]
    return ids, signal_at


def until_stopped(config: Config, data: Path, run: Path, *, resume: bool) -> None:
    with pytest.raises(RunStopped, match="go on with --resume"):
        train(config, data, run, resume=resume, console=Console(quiet=True))
    if dist.is_initialized():
        dist.destroy_process_group()


def work(number: int, folder: Path, ports: list[int], config: Config, data: Path) -> None:
    torch.set_num_threads(1)
    run, alone_done = folder / "run", folder / "alone-done"
    ids, signal_at = watch()
    take_place(number, ports[0])
    if number == 1:  # one rank gets the signal: all save and end, a step later
        signal_at.append(STEPS + 1)
    until_stopped(config, data, run, resume=False)
    if number == 0:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
        signal_at.append(2 * STEPS + 1)
        until_stopped(config, data, run, resume=True)
        alone_done.touch()
    while not alone_done.exists():
        time.sleep(0.05)
    take_place(number, ports[1])
    train(config, data, run, resume=True, console=Console(quiet=True))
    torch.save(ids, folder / f"ids-{number}.pt")


def test_two_ranks_then_one_then_two_are_one_run(
    stripes: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = gentle_config(tiny_config()).changed(
        run={"keep_checkpoints": 100}, data={"loader": "pil"}
    )
    codes = run_ranks(work, tmp_path, [free_port(), free_port()], config, stripes, limit_s=LIMIT_S)
    assert codes == [0, 0]
    monkeypatch.setattr(Clustering, "step", Clustering.step)  # what `watch` changes goes back
    monkeypatch.setattr(learner_module, "train_step", learner_module.train_step)  # type: ignore[attr-defined]
    ids, _ = watch()
    train(config, stripes, tmp_path / "alone", console=quiet)
    first, second = saved(tmp_path, "ids")
    assert first == ids and len(ids) == 3 * STEPS
    alone_steps = slice(STEPS + 3, 2 * STEPS + 2)  # without the second rank
    assert second == ids[: alone_steps.start] + ids[alone_steps.stop :]
    ends = [
        {
            CheckpointName.of(p).epoch: load_checkpoint(p)
            for p in list_checkpoints(tmp_path / r / "checkpoints")
        }
        for r in ("run", "alone")
    ]
    assert list(ends[0]) == list(ends[1]) == [0, 1, 2]
    for epoch in range(3):
        mixed, alone = (end[epoch] for end in ends)
        stores = [state["clustering"]["label_store"] for state in (mixed, alone)]
        assert equal_states(*stores), f"labels of epoch {epoch}"
    mixed_records, alone_records = (RunFolder(tmp_path / r).records() for r in ("run", "alone"))
    for a, b in zip(mixed_records, alone_records, strict=True):
        for name in ("effective_rank", "projected_rank"):  # of the same images, in the same order
            assert a[name] == pytest.approx(b[name], rel=1e-2 if a["epoch"] else 1e-4), name
    losses = [[r["loss"] for r in records[1:]] for records in (mixed_records, alone_records)]
    # Sums over ranks are rounded in another order, which grows from step to step.
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-5)
    assert losses[0][1] == pytest.approx(losses[1][1], abs=1e-3)
