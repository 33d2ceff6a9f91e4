"""Optimiser and learning-rate schedule of a training run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from coke.config.optimizer import OPTIMIZERS, OptimizerConfig
from coke.model.adamw import AdamW
from coke.model.fused_optimizer import FusedOptimizer
from coke.model.lars import LARS
from coke.model.parameter_groups import LR_SHARE, parameter_groups
from coke.model.sgd import SGD

#: The batch size that ``lr`` refers to if ``lr_scaling`` is not ``none``.
REFERENCE_BATCH = 1024


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> FusedOptimizer:
    """The optimiser over all trained parameters, see
    :func:`coke.model.parameter_groups.parameter_groups`.

    Raises:
        ValueError: an unknown name, or a layer-wise decay of a backbone without blocks.
    """
    if config.name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {config.name!r}; choose one of {', '.join(OPTIMIZERS)}")
    decay = config.weight_decay
    groups = parameter_groups(model, weight_decay=decay, layer_decay=config.layer_decay)
    if config.name == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=decay)
    if config.name == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    return LARS(groups, lr=config.lr, momentum=config.momentum, weight_decay=decay)


def step_if(valid: Tensor, optimizer: Optimizer) -> None:
    """One step of an optimiser of :func:`build_optimizer`, which moves nothing unless ``valid``.

    Args:
        valid: () bool on the device, which is not waited for: the update's kernel looks at it.
    """
    assert getattr(optimizer, "_step_supports_amp_scaling", False), "it would ignore found_inf"
    scaling: Any = optimizer  # as torch's gradient scaler sets them
    scaling.grad_scale, scaling.found_inf = None, (~valid).float()
    try:
        optimizer.step()
    finally:
        del scaling.grad_scale, scaling.found_inf


def scaled_to_batch(config: OptimizerConfig, batch_size: int) -> OptimizerConfig:
    """The settings for a batch size: all rates scaled, ``lr_scaling`` none."""
    ratio = batch_size / REFERENCE_BATCH
    factor = {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[config.lr_scaling]
    return replace(
        config,
        lr=config.lr * factor,
        final_lr=config.final_lr * factor,
        restart_lrs=tuple(lr * factor for lr in config.restart_lrs),
        lr_scaling="none",
    )


def learning_rate(config: OptimizerConfig, *, progress: float) -> float:
    """Learning rate after ``progress`` of ``config.epochs`` training epochs (without the scan).

    Warm-up, then a cosine to the first restart; a cosine from each restart to the next, without
    warm-up.
    """
    ends = (*config.restart_epochs[1:], config.epochs)
    for begin, end, lr in reversed(
        list(zip(config.restart_epochs, ends, config.restart_lrs, strict=False))
    ):
        if progress >= begin:
            return _cosine(config, lr, (progress - begin) / (end - begin))
    warmup = min(config.warmup_epochs, float(config.first_epochs))
    if progress < warmup:
        return config.lr * progress / warmup
    done = (progress - warmup) / max(config.first_epochs - warmup, 1e-9)
    return _cosine(config, config.lr, done)


def _cosine(config: OptimizerConfig, lr: float, done: float) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return config.final_lr + (lr - config.final_lr) * cosine


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Gives every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SHARE, 1.0)
