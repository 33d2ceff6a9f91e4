"""What a learner keeps in a checkpoint, and takes back from one."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.tools.training.learner import Learner, Place
from tests.support.equal_states import equal_states

CPU = torch.device("cpu")


def learner(config: Config, seed: int, precision: str = "fp32") -> Learner:
    seeded = replace(config, seed=seed)
    model = build_model(seeded.model, seed)
    return Learner(seeded, model, n_ids=20, n_points=20, device=CPU, precision=precision)


def test_a_step_knows_its_place_in_the_run() -> None:
    scan, first, last = (Place(epoch=e, step=s, steps=4) for e, s in ((0, 1), (1, 0), (3, 3)))
    assert [place.taken for place in (scan, first, last)] == [1, 4, 15]
    assert [place.trained_epochs for place in (scan, first, last)] == [-0.75, 0.0, 2.75]


def test_what_was_learned_comes_back(tiny: Config) -> None:
    saved, other = learner(tiny, 1), learner(tiny, 2)
    saved.clustering.step(torch.eye(8), torch.arange(8))
    assert not equal_states(other.state_dict(), saved.state_dict())
    other.load_state_dict(saved.state_dict(), "run")
    assert equal_states(other.state_dict(), saved.state_dict())


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_another_memory_layout_goes_on_alike(tiny: Config, name: str) -> None:
    """A resumed run may have another memory layout; torch's fused kernels go by address."""
    config = tiny.changed(optimizer={"name": name, "lr": 0.1})

    def step_after(layout: torch.memory_format) -> list[Tensor]:
        taken = learner(config, 3)
        taken.model.to(memory_format=layout)  # type: ignore[call-overload]
        taken.load_state_dict(copy.deepcopy(state), "run")
        for parameter in taken.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        taken.optimizer.step()
        return [p.detach().contiguous() for p in taken.model.parameters()]

    before = learner(config, 1)
    for parameter in before.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before.optimizer.step()
    state = before.state_dict()
    for a, b in zip(
        step_after(torch.contiguous_format), step_after(torch.channels_last), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_another_precision_is_refused(tiny: Config) -> None:
    state = learner(tiny, 1, "bf16").state_dict()
    with pytest.raises(ValueError, match="run r was trained in bf16, this would go on in fp32"):
        learner(tiny, 2).load_state_dict(state, "r")
