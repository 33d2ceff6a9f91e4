"""LARS: momentum SGD with a trust ratio per layer (You et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.sgd import sgd


class LARS(Optimizer):
    """LARS of the paper's release: one-dimensional tensors (batch norm, biases) get neither trust
    ratio nor weight decay.

    Args:
        params: parameters.
        lr: learning rate.
        momentum: momentum, applied after the trust ratio.
        weight_decay: L2 decay, added to the gradient before the ratio.
        trust: the trust coefficient.

    A gradient scaler sets the attributes ``found_inf`` and ``grad_scale``, scalars on the device.
    As with torch's fused optimisers, a step divides gradients by ``grad_scale`` and changes nothing
    if ``found_inf`` is 1. Nothing waits for either scalar.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update. Norms stay on the device: no synchronisation with the host."""
        assert closure is None, "LARS evaluates no closure"
        grad_scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = [p.grad for p in params]
            if grad_scale is not None:
                updates = list(torch._foreach_div(updates, grad_scale))
            large = [i for i, p in enumerate(params) if p.ndim > 1]
            weights, grads = [params[i] for i in large], [updates[i] for i in large]
            if large:
                grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
                weight_norms = torch.stack(torch._foreach_norm(weights))
                grad_norms = torch.stack(torch._foreach_norm(grads))
                ratios = torch.where(
                    (weight_norms > 0) & (grad_norms > 0),
                    group["trust"] * weight_norms / grad_norms,
                    torch.ones_like(grad_norms),
                )
                torch._foreach_mul_(grads, list(ratios.unbind()))
                for i, scaled in zip(large, grads, strict=True):
                    updates[i] = scaled
            # One pass over each weight and its momentum; this kernel looks at found_inf.
            sgd(
                params,
                updates,
                [self._momentum(p) for p in params],
                fused=True,
                found_inf=found_inf,
                weight_decay=0.0,
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    def _momentum(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
