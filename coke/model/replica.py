"""This rank's copy of the network, as a training step calls it."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coke.distributed.process_group import world_size
from coke.model.activation_checkpointing import checkpoint_activations
from coke.model.sync_batch_norm import synchronize_batch_norm


def replicate(
    model: nn.Module,
    device: torch.device,
    *,
    channels_last: bool = True,
    checkpoint: bool = False,
    compile: bool = False,
) -> nn.Module:
    """Moves the model to its device. Returns the network to call in training.

    The model is changed in place and keeps its parameters and their names: save and load the model.
    With several ranks, the network is a ``DistributedDataParallel`` around the model: every rank
    starts from rank 0's weights, gradients are averaged, and batch norm is synchronised. Labels,
    duals and centers must stay outside the model: DDP would send its buffers between ranks.

    Args:
        channels_last: the memory layout in which most convolutions are fastest.
        checkpoint: see :func:`coke.model.activation_checkpointing.checkpoint_activations`.
        compile: ``torch.compile`` the model; the first steps of each view size take minutes.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    if world_size() > 1:
        synchronize_batch_norm(model, device)
    if checkpoint:
        checkpoint_activations(model)
    if compile:
        model.compile()
    if world_size() == 1:
        return model
    # Batch norm's buffers are equal on all ranks. To send them at every forward pass costs time,
    # and breaks a second forward pass before the backward pass.
    named = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
    options: dict[str, Any] = {sync: False}
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # otherwise gradients take their memory twice
        **options,
    )


def without_averaging(network: nn.Module) -> AbstractContextManager[None]:
    """Context of a forward and backward pass whose gradients stay on this rank.

    All pieces of a step but the last need it.
    """
    if isinstance(network, DistributedDataParallel):
        held: AbstractContextManager[None] = network.no_sync()
        return held
    return nullcontext()
