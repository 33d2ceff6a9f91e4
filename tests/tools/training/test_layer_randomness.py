"""Random numbers that layers draw are a function of seed, step and rank."""

from __future__ import annotations

import torch

from coke.tools.training.layer_randomness import own_layer_randomness, seed_layers


def test_what_layers_draw_is_a_function_of_seed_step_and_rank() -> None:
    def draw(*key: int) -> float:
        seed_layers(*key)
        return float(torch.rand(()))

    torch.manual_seed(0)
    before = torch.get_rng_state()
    with own_layer_randomness(torch.device("cpu")):
        assert draw(0, 5, 1) == draw(0, 5, 1)
        assert len({draw(0, 5, 1), draw(1, 5, 1), draw(0, 6, 1), draw(0, 5, 0)}) == 4
        assert draw(0, 5) == draw(0, 5, 0)
    assert torch.equal(torch.get_rng_state(), before), "the caller's numbers are its own"
