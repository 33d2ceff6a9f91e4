"""LARS: momentum SGD with a trust ratio per layer (You et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """As the paper's release uses it: one-dimensional tensors (batch norm, biases) get neither
    trust ratio nor weight decay.

    Args:
        params: parameters.
        lr: learning rate.
        momentum: momentum, applied after the trust ratio.
        weight_decay: L2 decay, added to the gradient before the ratio.
        trust: the trust coefficient.
    """

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
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            updates = [p.grad for p in params]
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
                for i, scaled in zip(
                    large, torch._foreach_mul(grads, list(ratios.unbind())), strict=True
                ):
                    updates[i] = scaled
            buffers = [self._momentum(p) for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(params, buffers, alpha=-group["lr"])

    def _momentum(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
