"""LARS: momentum SGD with a trust ratio per layer (You et al., 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from coke.model.fused_optimizer import FusedOptimizer


class LARS(FusedOptimizer):
    """LARS of the paper's release: one-dimensional tensors (batch norm, biases) get neither trust
    ratio nor weight decay.

    Args:
        params: parameters, or groups of them, which may set a weight decay of their own.
        lr: learning rate.
        momentum: momentum, applied after the trust ratio.
        weight_decay: L2 decay, added to the gradient before the ratio.
        trust: the trust coefficient.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    def _update(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        group: dict[str, Any],
        *,
        scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        updates = grads if scale is None else list(torch._foreach_div(grads, scale))
        large = [i for i, p in enumerate(params) if p.ndim > 1]
        if large:
            ratioed = _with_trust_ratio(
                [params[i] for i in large], [updates[i] for i in large], group
            )
            for i, update in zip(large, ratioed, strict=True):
                updates[i] = update
        # One pass over each weight and its momentum; this kernel looks at found_inf.
        sgd(
            params,
            updates,
            [*self._kept("momentum_buffer", params)],
            fused=True,
            found_inf=found_inf,
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


def _with_trust_ratio(
    weights: list[Tensor], grads: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """Decayed gradients times trust x |weight| / |gradient|. Norms stay on the device."""
    decayed = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
    weight_norms = torch.stack(torch._foreach_norm(weights))
    grad_norms = torch.stack(torch._foreach_norm(decayed))
    ratios = torch.where(
        (weight_norms > 0) & (grad_norms > 0),
        group["trust"] * weight_norms / grad_norms,
        torch.ones_like(grad_norms),
    )
    torch._foreach_mul_(decayed, list(ratios.unbind()))
    return decayed
