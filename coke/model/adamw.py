"""AdamW, in one pass over each parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from coke.model.fused_optimizer import FusedOptimizer

_EPS = 1e-8  # added to the root of the mean squared gradient, as everywhere


class AdamW(FusedOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).

    Args:
        params: parameters, or groups of them, which may set a weight decay of their own.
        lr: learning rate.
        betas: decay of the mean gradient, and of the mean squared gradient.
        weight_decay: a step multiplies weights by 1 - lr x weight_decay.
    """

    def __init__(
        self, params: Any, *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        # Torch keeps a loaded step count on the parameter's device if the group says "fused".
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "fused": True}
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
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        beta1, beta2 = group["betas"]
        adamw(
            params,
            grads,
            self._kept("exp_avg", params),
            self._kept("exp_avg_sq", params),
            [],
            [self.state[p]["step"] for p in params],
            fused=True,
            grad_scale=scale,
            found_inf=found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=_EPS,
            maximize=False,
        )
