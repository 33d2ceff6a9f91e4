"""Counting steps that were skipped, in a row."""

from __future__ import annotations

import pytest
import torch

from coke.model.finite import NonFiniteStep
from coke.tools.bad_steps import BadSteps

NAN = NonFiniteStep("loss is nan")
IDS = torch.tensor([7, 3, 11, 2, 5])


def test_says_which_images_and_where() -> None:
    told = BadSteps(2).skipped(NAN, 3, 17, IDS, 0.125)
    assert told == (
        "step 17 of epoch 3 (ids 7, 3, 11, 2, ...; learning rate 0.125) is skipped: loss is nan"
    )
    assert "(ids 7;" in BadSteps(2).skipped(NAN, 3, 17, IDS[:1], 0.125)


def test_only_those_in_a_row_count() -> None:
    bad_steps = BadSteps(2)
    for step in range(3):
        bad_steps.skipped(NAN, 1, step, IDS, 0.1)
        bad_steps.good()
    bad_steps.skipped(NAN, 1, 8, IDS, 0.1)
    with pytest.raises(ValueError, match=r"^2 steps in a row .* step 9 of epoch 1 .*optimizer\.lr"):
        bad_steps.skipped(NAN, 1, 9, IDS, 0.1)


def test_goes_on_counting_after_a_resume() -> None:
    with pytest.raises(ValueError, match="^3 steps in a row"):
        BadSteps(3, in_a_row=2).skipped(NAN, 1, 0, IDS, 0.1)
