"""Weights and a picture that are the same on every machine: a formula instead of a generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's state dict: small weights, and scales and variances around 1."""
    found = {}
    for number, (name, value) in enumerate(state.items()):
        if not value.is_floating_point():
            found[name] = value
            continue
        counted = (torch.arange(value.numel()) * 7919 + 31 * number) % 1009
        around = 1.0 if name.endswith("var") or (value.dim() == 1 and "weight" in name) else 0.0
        found[name] = (counted.float() / 1009 - 0.5).view(value.shape) * 0.2 + around
    return found


def picture(side: int) -> Tensor:
    """Two images (2, 3, side, side) between -1 and 1."""
    values = torch.arange(2 * 3 * side * side) * 37 % 101
    return (values.float() / 50 - 1).view(2, 3, side, side)
