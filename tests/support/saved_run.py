"""A run folder that was not trained: weights of a seed, and statistics that are not the usual."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from coke.config.config import Config
from coke.config.overrides import to_toml
from coke.model.coke_model import CoKe, build_model
from coke.tools.runs.checkpoint import CheckpointName, save_checkpoint


def saved_run(folder: Path, config: Config, *, epochs: int = 1) -> Path:
    """Writes settings and a checkpoint, which is all that evaluations and exports read."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    model = build_model(config.model, config.seed)
    draw_statistics(model)
    state = {"model": model.state_dict(), "epoch": epochs}
    save_checkpoint(folder / "checkpoints", CheckpointName(epoch=epochs), state)
    return folder


def draw_statistics(model: CoKe) -> None:
    """Gives batch norms statistics, scales and shifts that differ from channel to channel."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
