"""The record of one epoch: a line of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from coke.clustering import HeadReport


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of ``metrics.jsonl``. ``loss`` is None for the initialisation scan (epoch 0).

    ``loss_over_chance`` is the loss divided by ln K (mean over heads): 1 means nothing is learned.
    ``left_out`` counts the images of a ragged last batch that was left out: they keep their labels.
    ``peak_memory`` is in bytes, so far: of torch's tensors on a GPU, of the process on a CPU.
    ``skipped_steps`` were not finite and moved nothing. ``probe`` is the k-NN top-1 in percent,
    ``linear_probe`` that of a linear classifier; None where the epoch was not probed.
    ``effective_rank`` (RankMe) is that of the backbone's
    features of the epoch's last images, ``projected_rank`` that of the features that are clustered;
    None where those were all zero, or not finite.
    """

    epoch: int
    loss: float | None
    loss_over_chance: float | None
    lr: float
    images_per_second: float
    data_wait: float
    seconds: float
    heads: list[HeadReport]
    left_out: int = 0
    peak_memory: int = 0
    skipped_steps: int = 0
    probe: float | None = None
    linear_probe: float | None = None
    effective_rank: float | None = None
    projected_rank: float | None = None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """The record that a line of ``metrics.jsonl`` holds."""
        return cls(**{**line, "heads": [HeadReport(**head) for head in line["heads"]]})
