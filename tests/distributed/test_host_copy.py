"""Copies from the GPU to the host run in the background until they are read."""

from __future__ import annotations

import pytest
import torch

from coke.distributed.host_copy import HostCopy


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_numbers_that_were_copied_are_read(device: str) -> None:
    values = torch.tensor([1.5, -2.0], device=device)
    sent = HostCopy(values)
    assert sent.read().tolist() == [1.5, -2.0]
    assert sent.read().device.type == "cpu"


@pytest.mark.gpu
def test_copying_and_reading_a_step_later_do_not_wait() -> None:
    values = torch.ones(3, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sent = HostCopy(values)
        values.add_(1)  # queued behind the copy
        found = sent.read()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.tolist() == [1.0, 1.0, 1.0]
