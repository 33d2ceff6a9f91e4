"""What layers draw (dropout): a function of the step, so that a resumed step draws the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from coke.pipeline.randomness import key_of

_LAYERS = 0x1A7E  # keys of these numbers: no other random number shares them


@contextmanager
def own_layer_randomness(device: torch.device) -> Iterator[None]:
    """Gives torch's generators back to the caller as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_layers(seed: int, step: int, rank: int = 0) -> None:
    """Seeds torch's generators for one step, instead of saving their state in checkpoints.

    A resumed step draws what it would have drawn, on any number of ranks that includes this one.
    Costs about 10 microseconds.

    Args:
        step: optimisation steps of the whole run before this one.
    """
    torch.manual_seed(int(key_of(_LAYERS, seed, step, rank)) >> 1)
