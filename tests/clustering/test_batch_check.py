"""A finding is kept until it is raised; on a GPU that happens at the end of the epoch."""

from __future__ import annotations

import math
import re

import pytest
import torch

from coke.clustering.batch_check import BatchCheck


def test_a_finding_outlives_the_good_batches_after_it() -> None:
    check = BatchCheck(20, "cpu")
    check.raise_for_findings()  # nothing was looked at yet
    good = torch.ones(3, 2)
    check.add(good, torch.tensor([0, 19, 4]))
    check.add(good * torch.tensor([[1.0], [math.nan], [1.0]]), torch.tensor([5, 6, 7]))
    check.add(good, torch.tensor([8, 9, 10]))
    with pytest.raises(ValueError, match="the features of id 6 hold NaN or infinity: leave such"):
        check.raise_for_findings()
    check.raise_for_findings()  # forgotten
    check.add(good, torch.tensor([5, 6, 7]))
    check.raise_for_findings()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([-1, 0], "ids hold -1; with n_ids 20 they must be 0 to 19"),
        ([20, 3], "ids hold 20; with n_ids 20 they must be 0 to 19"),
        ([7, 7], "id 7 is repeated inside a batch: give each image once"),
    ],
)
def test_ids(ids: list[int], message: str) -> None:
    check = BatchCheck(20, "cpu")
    check.add(torch.ones(2, 2), torch.tensor(ids))
    with pytest.raises(ValueError, match=re.escape(message)):
        check.raise_for_findings()


def test_the_same_id_in_two_batches_is_no_repetition() -> None:
    check = BatchCheck(20, "cpu")
    for _ in range(2):
        check.add(torch.ones(1, 2), torch.tensor([7]))
    check.raise_for_findings()


def test_only_a_whole_row_of_zeros_has_no_direction() -> None:
    check = BatchCheck(20, "cpu")
    check.add(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([1, 2]))
    check.raise_for_findings()
    check.add(torch.tensor([[0.0, 1.0], [0.0, -0.0]]), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="the features of id 2 are a zero vector"):
        check.raise_for_findings()
