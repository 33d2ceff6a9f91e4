"""Settings of a run that trains in a second."""

from __future__ import annotations

from dataclasses import replace

from coke.config.clustering import ClusteringConfig
from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.config.presets import presets


def tiny_config() -> Config:
    """A ResNet-10 of width 8 at 16 pixels, two heads, three batches of 16 and one of 12."""
    view = replace(presets["cifar10"].data.view, size=16, evaluation_size=0)
    return replace(
        presets["demo"],
        model=ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8),
        optimizer=replace(presets["demo"].optimizer, lr=0.15),
        clustering=ClusteringConfig(n_clusters=(3, 5)),
    ).changed(
        preset="custom",
        optimizer={"epochs": 3},
        data={"batch_size": 16, "start_size": 0, "view": view, "second_view": view},
        machine={"device": "cpu", "threads": 1},
        run={"keep_checkpoints": 10},
    )


def gentle_config(tiny: Config) -> Config:
    """Settings in which a rounding error of 1e-7 stays small: no steep loss, no large steps."""
    return replace(
        tiny,
        model=replace(tiny.model, predictor_hidden=8),
        optimizer=replace(tiny.optimizer, lr=5e-4, warmup_epochs=0.0),
    ).changed(
        machine={"precision": "fp32", "rank_timeout": 600.0},
        optimizer={"epochs": 2},
        loss={"temperature": 0.5, "beta": 0.5},
    )
