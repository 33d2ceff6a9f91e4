"""Networks with the weights of a run's checkpoint, and how weights are told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.tools.runs.run_folder import RunFolder


def load_run(run: str | Path, epoch: int | None = None) -> tuple[Config, CoKe, int]:
    """Configuration, trained model and epoch of a run's checkpoint, the newest when None."""
    folder = RunFolder(run)
    config = folder.config()
    state = folder.state(epoch)
    model = build_model(config.model, config.seed)
    model.load_state_dict(state["model"])
    return config, model, int(state["epoch"])


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 of all weights and statistics. It changes when a run is trained again."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
