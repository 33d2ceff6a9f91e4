"""A memory estimate that can be worked by hand."""

from __future__ import annotations

from coke.config.config import Config
from coke.tools.training.memory_estimate import MemoryEstimate

MIB = 1 << 20


def made_up(config: Config, *_: object, **__: object) -> MemoryEstimate:
    """10 MiB of activations for each image of a piece, 1 MiB for each of a batch, 100 for the
    process; half of the activations if they are checkpointed."""
    rows = config.data.batch_size
    share = 0.5 if config.machine.checkpoint_activations else 1.0
    return MemoryEstimate(
        weights=0,
        gradients=0,
        optimizer=0,
        activations=round(10 * MIB * share * rows / config.optimizer.accumulate),
        views=rows * MIB,
        decoding=0,
        clustering=0,
        checkpoint=0,
        workspace=0,
        process=100 * MIB,
    )
