"""Scratch memory is reused by later calls."""

from __future__ import annotations

import torch

from coke.clustering.scratch import Scratch


def test_memory_is_used_again_and_grows() -> None:
    scratch, like = Scratch(), torch.zeros(1)
    large = scratch.matrix(4, 6, like)
    assert large.shape == (4, 6)
    assert large.dtype == torch.float32
    assert large.is_contiguous()
    small = scratch.matrix(5, 3, like)
    assert small.shape == (5, 3)
    assert small.is_contiguous()
    assert small.data_ptr() == large.data_ptr()
    assert scratch.matrix(5, 5, like).shape == (5, 5)
    assert scratch.matrix(2, 2, like.double()).dtype == torch.float64


def test_a_gpus_allocator_is_left_to_itself() -> None:
    scratch, like = Scratch(), torch.zeros(1, device="meta")
    assert scratch.matrix(4, 6, like).device.type == "meta"
    assert scratch.matrix(4, 6, like) is not scratch.matrix(4, 6, like)
