"""Synchronised batch norm for the CPU: its statistics are those of the global batch.

The paper synchronises batch norm across GPUs (App. B.1). ``torch.nn.SyncBatchNorm`` refuses tensors
on the CPU. With the class here, two gloo ranks train as one.

Shapes: B batch of this rank, C channels, ... further axes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch norm synchronised across ranks: torch's on a GPU, ours on a CPU.

    Parameters and buffers stay the same objects under the same names, so state dicts fit both ways.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            setattr(model, name, SyncBatchNorm.like(child))
        else:
            synchronize_batch_norm(child, device)
    return model


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all ranks. A rank may have none, in a ragged last batch.

    In evaluation it is plain batch norm. It computes in float32, or in float64 if its input is, and
    returns its input's dtype, as torch's batch norm does.
    """

    @classmethod
    def like(cls, norm: nn.modules.batchnorm._BatchNorm) -> SyncBatchNorm:
        """The same layer, synchronised; it takes over parameters and buffers."""
        synced = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        synced.weight, synced.bias = norm.weight, norm.bias
        synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
        synced.num_batches_tracked = norm.num_batches_tracked
        synced.training = norm.training
        return synced

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm got a tensor of shape {tuple(input.shape)}; give (B, C)")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not (dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        mean_C, var_C, count = _global_statistics(input.detach())
        if count == 1:
            raise ValueError("batch norm got one value per channel over all ranks; it needs two")
        if self.track_running_stats and self.running_mean is not None:
            self._follow(mean_C, var_C * (count / (count - 1)))
        normalized: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean_C, var_C, count, self.eps
        )
        return normalized

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, var_C: Tensor) -> None:
        """Moves the running statistics; the variance there is the unbiased one."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # torch's cumulative average
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(var_C, share)


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean (C,) and biased variance (C,) over all ranks, and the values per channel."""
    channels, dtype = x.shape[1], _wide(x)
    rows = x.to(dtype).transpose(0, 1).reshape(channels, -1)
    mine = rows.new_zeros(2 * channels + 1, dtype=torch.float64)
    if rows.shape[1]:
        var_C, mean_C = torch.var_mean(rows, dim=1, correction=0)
        mine[:channels], mine[channels:-1], mine[-1] = mean_C, var_C, rows.shape[1]
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    of_ranks = torch.stack(everyone)
    means_RC, vars_RC, counts_R1 = (
        of_ranks[:, :channels],
        of_ranks[:, channels:-1],
        of_ranks[:, -1:],
    )
    count = counts_R1.sum()
    mean_C = (means_RC * counts_R1).sum(dim=0) / count
    # Spread inside the ranks and between them: no difference of large sums, which float32 loses.
    var_C = ((vars_RC + (means_RC - mean_C).square()) * counts_R1).sum(dim=0) / count
    return mean_C.to(dtype), var_C.to(dtype), int(count)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _Normalize(torch.autograd.Function):
    """Normalisation by global statistics; its gradient knows that those come from the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_C: Tensor | None,
        bias_C: Tensor | None,
        mean_C: Tensor,
        var_C: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_C, mean_C, torch.rsqrt(var_C + eps))
        ctx.count = count
        ctx.has_bias = bias_C is not None
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C, mean_C, scale_C = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.ndim - 2))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        grad = grads[0].to(_wide(x))
        centered = (x.to(_wide(x)) - mean_C.view(shape)) * scale_C.view(shape)
        grad_bias_C, grad_weight_C = grad.sum(axes), (grad * centered).sum(axes)
        # Gradients of parameters are this rank's share: DistributedDataParallel adds those up.
        sums_2C = torch.stack([grad_bias_C, grad_weight_C])
        dist.all_reduce(sums_2C)
        mean_2C = sums_2C / ctx.count
        inner = grad - mean_2C[0].view(shape) - centered * mean_2C[1].view(shape)
        gain_C = scale_C if weight_C is None else scale_C * weight_C
        grad_x = (inner * gain_C.view(shape)).to(x.dtype)
        return (
            grad_x,
            None if weight_C is None else grad_weight_C,
            grad_bias_C if ctx.has_bias else None,
            None,
            None,
            None,
            None,
        )
