"""What our optimisers share: a step in fused kernels, which nothing on the host waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

F = TypeVar("F", bound=Callable[..., Any])


def _undecorated(method: F) -> F:
    """A method of torch's optimiser without the wrapper that imports ``torch._dynamo``."""
    return getattr(method, "__wrapped__", method)


class FusedOptimizer(Optimizer):
    """Base of our optimisers.

    A gradient scaler sets the attributes ``found_inf`` and ``grad_scale``, scalars on the device.
    As with torch's fused optimisers, a step divides gradients by ``grad_scale`` and changes nothing
    if ``found_inf`` is 1. Nothing waits for either scalar.

    Torch's own classes import ``torch._dynamo``, which takes 1.8 seconds of a run's start. Only
    compiled optimisers need it, and ours are not compiled.
    """

    _step_supports_amp_scaling = True
    add_param_group = _undecorated(Optimizer.add_param_group)
    zero_grad = _undecorated(Optimizer.zero_grad)
    state_dict = _undecorated(Optimizer.state_dict)
    load_state_dict = _undecorated(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update. No synchronisation with the host."""
        assert closure is None, "these optimisers evaluate no closure"
        scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                grads = [p.grad for p in params]
                self._update(params, grads, group, scale=scale, found_inf=found_inf)

    def _update(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        group: dict[str, Any],
        *,
        scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Moves parameters of one group by their gradients."""
        raise NotImplementedError

    def _kept(self, name: str, params: list[Tensor]) -> list[Tensor]:
        """What is kept for each parameter, in its shape; zeros at first.

        Zeros give the first step of torch's own start. They are there even if the very first step
        is skipped, and for a parameter whose first gradient comes later than others'.
        """
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]
