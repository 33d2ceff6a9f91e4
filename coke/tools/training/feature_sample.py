"""Features of the last images of an epoch, whose effective rank tells of a collapse.

They are those that training computed anyway: nothing is decoded or passed forward again. They
belong to augmented images, batch norm in training, and weights that moved within these steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from coke.tools.evaluation.effective_rank import effective_rank

#: Images in the sample of an epoch. A rank cannot be above it.
SAMPLE_IMAGES = 2048


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Features of images of all ranks, on the device.

    Attributes:
        represented: (R, D) float32 of the backbone, of the first view.
        projected: (B, dim) float32, as they are clustered. They may be of more images.
    """

    represented: Tensor
    projected: Tensor

    @classmethod
    def of(cls, represented_RD: Tensor, projected_BD: Tensor, valid: Tensor) -> Self:
        """Copies of these features; zeros, which change no rank, if the step is not valid."""
        return cls(
            represented=torch.where(valid, represented_RD, 0.0),
            projected=torch.where(valid, projected_BD, 0.0),
        )


@dataclass(frozen=True, kw_only=True)
class EffectiveRanks:
    """Effective ranks of an epoch's sample; None where features are missing or not finite."""

    represented: float | None
    projected: float | None


def is_sampled(step: int, steps: int, images: int) -> bool:
    """Whether a step, of ``steps`` in its epoch with ``images`` each, belongs to the sample."""
    return step >= steps - -(-SAMPLE_IMAGES // images)


class FeatureSample:
    """The last rows that it was given, at most ``SAMPLE_IMAGES`` of each kind.

    Args:
        state: :meth:`state` of the same epoch if it was interrupted.
        device: where to take that state.
    """

    def __init__(
        self,
        state: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._rows: list[FeatureRows] = []
        if state:
            self._rows = [FeatureRows(**{name: t.to(device) for name, t in state.items()})]

    def add(self, rows: FeatureRows | None) -> None:
        """Takes the rows of a step, if it has any."""
        if rows is not None:
            self._rows.append(rows)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint within the epoch; empty before the sampled steps."""
        return vars(self._all()) if self._rows else {}

    def ranks(self) -> EffectiveRanks:
        """Waits for the device."""
        if not self._rows:
            return EffectiveRanks(represented=None, projected=None)
        rows = self._all()
        return EffectiveRanks(
            represented=effective_rank(rows.represented), projected=effective_rank(rows.projected)
        )

    def _all(self) -> FeatureRows:
        return FeatureRows(
            represented=torch.cat([rows.represented for rows in self._rows])[-SAMPLE_IMAGES:],
            projected=torch.cat([rows.projected for rows in self._rows])[-SAMPLE_IMAGES:],
        )
