"""What a checkpoint of a run holds, and what layers draw without one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.model.optimizer import build_optimizer
from coke.tools.training.training_state import Progress, Trained, own_layer_randomness, seed_layers
from tests.support.equal_states import equal_states


def trained(config: Config, seed: int, precision: str = "fp32") -> Trained:
    model = build_model(config.model, seed)
    return Trained(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        clustering=Clustering(n_ids=20, dim=8, n_clusters=(3, 5), seed=seed),
        precision=precision,
    )


def test_a_state_and_where_it_goes_on_come_back(tiny: Config) -> None:
    saved, other = trained(tiny, 1), trained(tiny, 2)
    saved.clustering.step(torch.eye(8), torch.arange(8))
    loader = {"epoch": 4, "position": 48, "seed": 0, "order": 0, "window": 64}
    within = Progress(epoch=4, step=3, loader=loader, meter={"images": 48}, bad_in_a_row=2)
    for progress, epoch in ((within, 4), (Progress(epoch=5), 4), (Progress(), -1)):
        state = saved.state_dict(progress)
        assert state["epoch"] == epoch, "the epoch that the weights were trained in"
        assert other.load(state, "run") == progress
        assert equal_states(other.state_dict(progress), state)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_another_memory_layout_goes_on_alike(tiny: Config, name: str) -> None:
    """``channels_last`` may differ after a resume, and torch's fused kernels go by address."""

    def step_after(layout: torch.memory_format) -> list[Tensor]:
        model = build_model(tiny.model, 3).to(memory_format=layout)  # type: ignore[call-overload]
        taken = replace(trained(tiny, 3), model=model, optimizer=build_optimizer(model, settings))
        taken.load(copy.deepcopy(state), "run")
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        taken.optimizer.step()
        return [p.detach().contiguous() for p in model.parameters()]

    settings = replace(tiny.optimizer, name=name, lr=0.1)
    model = build_model(tiny.model, 1)
    before = replace(trained(tiny, 1), model=model, optimizer=build_optimizer(model, settings))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before.optimizer.step()
    state = before.state_dict(Progress())
    for a, b in zip(
        step_after(torch.contiguous_format), step_after(torch.channels_last), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_state_of_the_first_format_goes_on_with_the_next_epoch(tiny: Config) -> None:
    state: dict[str, Any] = trained(tiny, 1).state_dict(Progress(epoch=4))
    del state["progress"], state["scaler"]
    assert trained(tiny, 2).load(state, "run") == Progress(epoch=4)


def test_another_precision_is_refused(tiny: Config) -> None:
    state = trained(tiny, 1, "bf16").state_dict(Progress())
    with pytest.raises(ValueError, match="run r was trained in bf16, this would go on in fp32"):
        trained(tiny, 2).load(state, "r")


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
