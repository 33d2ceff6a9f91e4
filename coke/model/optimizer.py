"""Optimiser and learning-rate schedule of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coke.model.lars import LARS

OPTIMIZERS = ("lars", "sgd")
LR_SCALINGS = ("none", "sqrt", "linear")
#: The batch size whose learning rate ``lr`` is, where it is scaled.
REFERENCE_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Defaults are the paper's (App. B.1): LARS, 1.6 at batch 1,024, 10 epochs of warm-up.

    Attributes:
        name: ``"lars"`` or ``"sgd"`` (Nesterov).
        lr: peak learning rate, of this batch size or, with ``lr_scaling``, of batch 1,024.
        lr_scaling: ``"none"``, ``"sqrt"`` (with the square root of the batch size, nearly as
            the paper's Table 9 has it: 0.8, 1.13 for its 1.2, 1.6 at 256, 512, 1,024) or
            ``"linear"``.
        warmup_epochs: linear warm-up after the initialisation scan, then cosine to ``final_lr``.
    """

    name: str = "lars"
    lr: float = 1.6
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    final_lr: float = 0.0
    lr_scaling: str = "none"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; give 0 <= momentum < 1")
        for name in ("weight_decay", "warmup_epochs", "final_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.lr_scaling not in LR_SCALINGS:
            raise ValueError(
                f"lr_scaling is {self.lr_scaling!r}; choose one of {', '.join(LR_SCALINGS)}"
            )


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimiser over all parameters; one-dimensional ones are never decayed."""
    if config.name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {config.name!r}; choose one of {', '.join(OPTIMIZERS)}")
    params = [p for p in model.parameters() if p.requires_grad]
    if config.name == "lars":
        return LARS(
            params, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return _fused_sgd(groups, config)


def _fused_sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """SGD in one pass over each parameter; on a CPU an eighth of the time of torch's loop.

    Momentum starts at zero, which gives the same first step as torch's own start. Left to itself,
    the fused kernel keeps uninitialised momentum where float16's scaler skips the very first step,
    and refuses a parameter whose first gradient comes later than the others'.
    """
    sgd = torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
    )
    if config.momentum > 0:
        for group in sgd.param_groups:
            for p in group["params"]:
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return sgd


def step_where(optimizer: Optimizer, finite: Tensor) -> None:
    """One step of an optimiser of :func:`build_optimizer`, which moves nothing unless ``finite``.

    Args:
        finite: () bool on the device, which is not waited for: the update's kernel looks at it.
    """
    assert getattr(optimizer, "_step_supports_amp_scaling", False), "it would ignore found_inf"
    scaling: Any = optimizer  # as torch's gradient scaler sets them
    scaling.grad_scale, scaling.found_inf = None, (~finite).float()
    try:
        optimizer.step()
    finally:
        del scaling.grad_scale, scaling.found_inf


def scaled_to_batch(config: OptimizerConfig, batch_size: int) -> OptimizerConfig:
    """The settings for a batch size: ``lr`` and ``final_lr`` scaled, nothing left to scale."""
    ratio = batch_size / REFERENCE_BATCH
    factor = {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[config.lr_scaling]
    return replace(
        config, lr=config.lr * factor, final_lr=config.final_lr * factor, lr_scaling="none"
    )


def learning_rate(config: OptimizerConfig, *, progress: float, epochs: int) -> float:
    """Learning rate after ``progress`` training epochs (the scan not counted) of ``epochs``."""
    warmup = min(config.warmup_epochs, float(epochs))
    if progress < warmup:
        return config.lr * progress / warmup
    done = (progress - warmup) / max(epochs - warmup, 1e-9)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.final_lr + (config.lr - config.final_lr) * cosine


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
