"""Batch norms as a training leaves them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def trained_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after a training: no layer's scale is 1 or shift 0."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
            module.running_var.copy_(uniform(module.running_var, 0.3, 3))
            module.weight.data.copy_(uniform(module.weight, -0.5, 1.5))
            module.bias.data.copy_(uniform(module.bias, -0.5, 0.5))
    return network.eval()
