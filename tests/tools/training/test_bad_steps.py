"""Counting steps that were skipped, in a row."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from coke.tools.training import bad_steps as bad_steps_module
from coke.tools.training.bad_steps import BadSteps
from coke.tools.training.learner import Place, Step

NAN = torch.tensor(float("nan"))
IDS = torch.tensor([7, 3, 11, 2, 5])
YES, NO = torch.tensor(True), torch.tensor(False)


def add(
    bad_steps: BadSteps,
    valid: Tensor,
    *,
    loss: Tensor | None = NAN,
    epoch: int = 1,
    step: int = 0,
    ids: Tensor = IDS,
    lr: float = 0.1,
) -> list[str]:
    found = Step(loss=loss, valid=valid, ids=ids, images=len(ids), lr=lr)
    return bad_steps.add(Place(epoch=epoch, step=step, steps=20), found)


def test_says_which_images_and_where_and_what() -> None:
    warnings = add(BadSteps(2), NO, epoch=3, step=17, lr=0.125)
    assert warnings == [
        "step 17 of epoch 3 (ids 7, 3, 11, 2, ...; learning rate 0.125) is skipped: loss is nan"
    ]
    assert "(ids 7;" in add(BadSteps(2), NO, ids=IDS[:1])[0]
    assert add(BadSteps(2), NO, loss=YES.float())[0].endswith("gradients are not finite")
    assert add(BadSteps(2), NO, loss=None)[0].endswith("features are not finite")
    assert add(BadSteps(2), YES, loss=YES.float()) == []


def test_only_those_in_a_row_count() -> None:
    bad_steps = BadSteps(2)
    for step in range(3):
        add(bad_steps, NO, step=step)
        add(bad_steps, YES)
    add(bad_steps, NO, step=8)
    with pytest.raises(ValueError, match=r"^2 steps in a row .* step 9 of epoch 1 .*optimizer\.lr"):
        add(bad_steps, NO, step=9)


def test_goes_on_counting_after_a_resume() -> None:
    with pytest.raises(ValueError, match="^3 steps in a row"):
        add(BadSteps(3, in_a_row=2), NO)


@dataclass
class FarAway:
    """A verdict that looks as if it were on a GPU."""

    value: Tensor
    device = torch.device("cuda")

    def float(self) -> Tensor:
        return self.value.float()


def test_a_gpu_is_asked_a_step_later(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Noted:
        def __init__(self, values: Tensor) -> None:
            self._values, self._number = values, asked.pop(0)

        def read(self) -> Tensor:
            read.append(self._number)
            return self._values

    asked = [0, 1, 2]
    monkeypatch.setattr(bad_steps_module, "HostCopy", Noted)
    bad_steps = BadSteps(3)
    warnings = [
        add(bad_steps, FarAway(valid), step=i)  # type: ignore[arg-type]
        for i, valid in enumerate((NO, YES, NO))
    ]
    assert read == [0, 1]
    assert [len(lines) for lines in warnings] == [0, 1, 0]
    assert warnings[1][0].startswith("step 0 ")
    assert bad_steps.in_a_row == 0
    assert bad_steps.read_all()[0].startswith("step 2 ") and bad_steps.read_all() == []
    assert bad_steps.in_a_row == 1
