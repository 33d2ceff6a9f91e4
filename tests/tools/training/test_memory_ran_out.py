"""Memory that runs out all the same: one line, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coke.config.config import Config
from coke.tools.training.learner import Learner
from coke.tools.training.train import train

SAID = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory\nframe #0"


@pytest.mark.slow
def test_one_line_says_how_to_go_on(
    stripes: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny.changed(optimizer={"epochs": 1}, data={"loader": "pil"})
    run = tmp_path / "run"

    def fails(*_: Any) -> None:
        raise RuntimeError(SAID)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "scan", fails)
        with pytest.raises(ValueError, match="Nothing was learned yet: start again with more"):
            train(config, stripes, run, console=quiet)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", fails)
        with pytest.raises(ValueError, match="memory ran out") as raised:
            train(config, stripes, run, resume="auto", console=quiet)
    assert str(raised.value) == (
        "memory ran out ([enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
        f"memory). The run is saved in {run}: go on with --resume, which needs less with --set "
        "machine.checkpoint_activations=true, or on more ranks"
    )
    less = config.changed(machine={"checkpoint_activations": True})
    assert train(less, stripes, run, resume=True, console=quiet).epoch == 1
