"""Gradient clipping: a step never goes further than a gradient of a given norm would take it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_EPS = 1e-6  # as in torch's clip_grad_norm_


@torch.no_grad()
def clip_gradients(
    gradients: Sequence[Tensor], largest: float, scale: Tensor | None = None
) -> None:
    """Shrinks all gradients alike, in place, where their common norm is above ``largest``.

    As ``torch.nn.utils.clip_grad_norm_`` (Pascanu et al., ICML 2013). Nothing waits for the device.
    If the norm is not finite, all gradients become NaN, which leaves the step out.

    Args:
        gradients: of all parameters, averaged over ranks and pieces of the batch: the same on every
            rank.
        scale: () that a gradient scaler has multiplied them by; the norm is that of the unscaled.
    """
    if not gradients:
        return
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
    unscaled = norm if scale is None else norm / scale
    share = (largest / (unscaled + _EPS)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), torch.where(torch.isfinite(norm), share, torch.nan))
