"""Batch norm folded into the layer before it: in evaluation both are one affine map.

A convolution or linear layer with weight W and bias b, then batch norm with scale g, shift h and
running statistics m and v, is one layer with weight ``W s`` and bias ``h + (b - m) s``, where
``s = g / sqrt(v + eps)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coke.model.resnet import BasicBlock, Bottleneck, ResNet

_Layer = nn.Conv2d | nn.Linear


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> int:
    """Folds every batch norm whose input is known to be a layer's output. Returns how many.

    The network is changed: it computes the same in evaluation, to float32's rounding, and can no
    longer be trained. Known are layers and norms that follow each other in an ``nn.Sequential``,
    and those of the ResNets of this package. Norms elsewhere stay.
    """
    folded = 0
    for parent in [*network.modules()]:
        for layer_name, norm_name in _pairs(parent):
            layer, norm = getattr(parent, layer_name), getattr(parent, norm_name)
            if isinstance(layer, _Layer) and _is_fixed(norm, layer):
                _fold(layer, norm)
                setattr(parent, norm_name, nn.Identity())
                folded += 1
    return folded


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of children of which the second gets the output of the first, and nothing else does."""
    if type(parent) is nn.Sequential:
        yield from pairwise(name for name, _ in parent.named_children())
    elif isinstance(parent, ResNet | BasicBlock | Bottleneck):
        for name, _ in [*parent.named_children()]:
            if name.startswith("conv"):
                yield name, name.replace("conv", "bn")


def _is_fixed(norm: nn.Module, layer: nn.Module) -> bool:
    """Whether it is a batch norm with running statistics of this layer's outputs."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return False
    outputs = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    return bool(norm.num_features == outputs)


def _fold(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    mean_C, var_C = norm.running_mean.double(), norm.running_var.double()
    scale_C = torch.rsqrt(var_C + norm.eps)
    if norm.weight is not None:
        scale_C = scale_C * norm.weight.double()
    shift_C: Tensor = -mean_C if layer.bias is None else layer.bias.double() - mean_C
    shift_C = shift_C * scale_C
    if norm.bias is not None:
        shift_C = shift_C + norm.bias.double()
    weight = layer.weight
    # `copy_` keeps the weight's memory layout.
    weight.copy_(weight.double() * scale_C.view(-1, *[1] * (weight.ndim - 1)))
    layer.bias = nn.Parameter(shift_C.to(weight.dtype), requires_grad=False)
