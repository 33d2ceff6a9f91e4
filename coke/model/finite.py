"""Steps whose loss or gradients are not finite: found and undone without waiting for the device.

Whether a step is valid is a bool scalar on the device. The device itself undoes a step that is not
valid; the host reads the scalar later (:class:`coke.distributed.host_copy.HostCopy`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def finite_features(features_BD: Tensor) -> Tensor:
    """Whether all features are finite, a bool scalar."""
    return torch.isfinite(features_BD).all()


def finite_gradients(loss: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Whether the loss and all gradients are finite, a bool scalar.

    A loss and gradients that were reduced over ranks are equal on all of them, and so is this.
    """
    finite = torch.isfinite(loss)
    if gradients:  # a norm is finite if all numbers are, and their squares fit float32
        finite = finite & torch.isfinite(torch.stack(torch._foreach_norm(list(gradients)))).all()
    return finite


class Statistics:
    """Batch norm's running statistics from before a step, to undo a step that is not valid.

    The forward pass moves the statistics, and one NaN in them would stay for good. To keep them
    costs a few small copies in each step: 0.4 MB each for a ResNet-50.
    """

    def __init__(self, model: nn.Module) -> None:
        buffers = [b for b in model.buffers() if b.numel()]
        by_dtype = {b.dtype: [a for a in buffers if a.dtype == b.dtype] for b in buffers}
        self._groups = [_Group(group) for group in by_dtype.values()]

    @torch.no_grad()
    def keep(self) -> None:
        for group in self._groups:
            group.keep()

    @torch.no_grad()
    def restore_unless(self, valid: Tensor) -> None:
        """Puts back what was kept unless ``valid`` () is true; does not wait for its value."""
        for group in self._groups:
            group.restore_unless(valid)


class _Group:
    """Buffers of one dtype in one flat tensor, so that one kernel copies all of them."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self._live = buffers
        self._kept = torch.cat([b.flatten() for b in buffers])
        self._chosen = torch.empty_like(self._kept)
        parts = self._chosen.split([b.numel() for b in buffers])
        self._chosen_parts = [p.view_as(b) for p, b in zip(parts, buffers, strict=True)]

    def keep(self) -> None:
        torch.cat([b.flatten() for b in self._live], out=self._kept)

    def restore_unless(self, valid: Tensor) -> None:
        now = torch.cat([b.flatten() for b in self._live])
        torch.where(valid, now, self._kept, out=self._chosen)
        torch._foreach_copy_(self._live, self._chosen_parts)
