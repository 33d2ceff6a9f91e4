"""What a checkpoint of a training run holds: everything that decides how it goes on.

Nothing in it depends on how many processes train: parameters, clustering and label store are equal
on all ranks, and the loader's position counts the images of all of them together. Randomness needs
no state: order and views are functions of (seed, epoch, id), what layers draw is reseeded by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from coke.clustering import Clustering
from coke.pipeline.randomness import key_of

_LAYERS = 0x1A7E  # keys of what layers draw


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run goes on.

    Attributes:
        epoch: the epoch of the next step.
        step: steps of that epoch that were taken.
        loader: :meth:`coke.pipeline.loading.loader.Loader.state` within an epoch, None at its
            start: images consumed, not prefetched.
        meter: :meth:`coke.tools.training.report.EpochMeter.state` within an epoch.
        bad_in_a_row: steps that were skipped up to now, without a good one after them.
    """

    epoch: int = 0
    step: int = 0
    loader: dict[str, int] | None = None
    meter: dict[str, Any] | None = None
    bad_in_a_row: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training moves."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    clustering: Clustering
    precision: str

    def state_dict(self, progress: Progress) -> dict[str, Any]:
        """The state of a run that is to go on at ``progress``; it shares memory with the run.

        ``epoch`` in it is the epoch that the weights were last trained in.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "clustering": self.clustering.state_dict(),
            "precision": self.precision,
            "epoch": progress.epoch if progress.step else progress.epoch - 1,
            "progress": {f.name: getattr(progress, f.name) for f in fields(progress)},
        }

    def load(self, state: dict[str, Any], run: object) -> Progress:
        """Takes over a saved state of the run ``run``; returns where it goes on.

        Raises:
            ValueError: it was trained in another precision; the message names both.
        """
        if state["precision"] != self.precision:
            raise ValueError(
                f"run {run} was trained in {state['precision']}, this would go on in "
                f"{self.precision}; add --set machine.precision={state['precision']}, or use a "
                "machine like the first"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            if (buffer := kept.get("momentum_buffer")) is not None:
                # Fused kernels go by address: laid out as the weights are now, not as it was saved.
                kept["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.clustering.load_state_dict(state["clustering"])
        if "progress" not in state:  # of format version 1: the end of an epoch
            return Progress(epoch=int(state["epoch"]) + 1)
        return Progress(**state["progress"])


@contextmanager
def own_layer_randomness(device: torch.device) -> Iterator[None]:
    """Leaves torch's generators to the caller as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_layers(seed: int, step: int, rank: int = 0) -> None:
    """Seeds what layers draw (dropout) from the step of the run, instead of saving generators.

    A resumed step then draws what it would have drawn, on any number of ranks that includes this
    one. Costs some 10 microseconds.
    """
    torch.manual_seed(int(key_of(_LAYERS, seed, step, rank)) >> 1)
