"""Activation checkpointing: a block keeps its input, and the backward pass computes the rest again.

It costs about a third more computing and saves most of the activations' memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from coke.model.resnet import BasicBlock, Bottleneck
from coke.model.vit import Block


def checkpoint_activations(model: nn.Module) -> int:
    """Makes every block of a ResNet or ViT forget its activations. Returns how many do.

    Features, gradients and batch norm's statistics stay the same. Networks of timm have a switch of
    their own for it.

    Raises:
        ValueError: the network has no such blocks.
    """
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck | Block)]
    for block in blocks:
        norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
        block.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=False,  # the blocks draw nothing
            context_fn=functools.partial(_contexts, norms),
        )
    if blocks:
        return len(blocks)
    for module in model.modules():
        if callable(switch := getattr(module, "set_grad_checkpointing", None)):
            switch(True)
            return 1
    raise ValueError(
        "checkpoint_activations is set, but this backbone has no blocks to checkpoint: use a "
        "ResNet or a ViT, or --set optimizer.accumulate=2 to save memory"
    )


def _contexts(
    norms: list[_BatchNorm],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first pass through a block, and of the second."""
    return nullcontext(), _statistics_stay(norms)


@contextmanager
def _statistics_stay(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norm normalises as in the first pass, and moves no running statistics."""
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
