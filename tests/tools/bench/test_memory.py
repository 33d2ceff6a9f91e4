"""The search for the largest batch; the process's own peak."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coke.tools.bench.memory import largest_multiple, peak_bytes


@pytest.mark.parametrize("largest", [0, 7, 8, 9, 63, 64, 65, 1000, 1024, 5000])
def test_finds_the_largest_multiple_that_fits(largest: int) -> None:
    tried: list[int] = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n <= largest

    assert largest_multiple(fits, of=8, limit=1024) == min(largest // 8 * 8, 1024)
    assert all(n % 8 == 0 and 8 <= n <= 1024 for n in tried)
    assert len(tried) == len(set(tried)) <= 15  # 7 doublings and 7 halvings of 128 at most


def test_the_peak_of_a_process_holds_what_it_held() -> None:
    held = np.ones(64 * 2**20, dtype=np.uint8)  # 64 MiB, touched
    assert peak_bytes(torch.device("cpu")) > held.nbytes


@pytest.mark.gpu
def test_the_largest_batch_on_a_gpu() -> None:

    from coke.config.presets import presets
    from coke.tools.bench.memory import held_beside_torch, largest_batch_that_fits

    device, gib = torch.device("cuda"), 2**30
    beside = held_beside_torch(device)
    config = presets["cifar10"].changed(machine={"device": "cuda"})
    small, large = (
        largest_batch_that_fits(config, device, "bf16", beside + n * gib, beside=beside)
        for n in (1, 2)
    )
    assert 0 < small < large
