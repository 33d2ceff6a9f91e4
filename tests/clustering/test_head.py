"""One head: which centers it assigns with, when they freeze, what it averages."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.head import FIRST_STEP, Head
from coke.clustering.sizes import SizeBounds
from coke.clustering.stream import Stream
from coke.clustering.streaming_assignment import assign_stream

CENTERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def head(
    *,
    centers: Tensor = CENTERS,
    n_ids: int = 8,
    min_ratio: float = 0.4,
    max_ratio: float = 0.0,
    dual_rule: str = "paper",
    dual_lr: float = 1.0,
) -> Head:
    return Head(
        n_points=n_ids,
        centers_KD=centers,
        min_ratio=min_ratio,
        max_ratio=max_ratio,
        dual_rule=dual_rule,
        dual_lr=dual_lr,
    )


def step(h: Head, x: Tensor, *, second_stage: bool) -> Tensor:
    """A batch of ids that have no label yet."""
    return h.step(x, torch.full((len(x),), -1), second_stage=second_stage)


def test_a_fresh_head() -> None:
    fresh = head(centers=torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64))
    assert fresh.centers.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]]
    assert fresh.centers.dtype == torch.float32
    assert torch.equal(fresh.running_centers, fresh.centers)
    assert fresh.duals.tolist() == fresh.counts.tolist() == [0.0, 0.0]
    assert (fresh.n_clusters, fresh.dim) == (2, 2)


@pytest.mark.parametrize(("ratio", "bound"), [(0.0, 0.0), (0.4, 40.0), (1.0, 100.0)])
def test_bounds(ratio: float, bound: float) -> None:
    assert head(n_ids=200, min_ratio=ratio).bounds == SizeBounds(lower=bound)
    bounds = head(n_ids=200, min_ratio=ratio, max_ratio=1.5).bounds
    assert bounds == SizeBounds(lower=bound, upper=150.0)


def test_an_epoch_of_the_first_stage_by_hand() -> None:
    h = head()
    x = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    labels = step(h, x, second_stage=False)
    assert labels.tolist() == [0, 0]
    # Shares (1, 0), due 0.4 / 2 = 0.2 each, lr 1: 0 - 0.8 -> 0 and 0 + 0.2.
    torch.testing.assert_close(h.duals, torch.tensor([0.0, 0.2]))
    assert h.counts.tolist() == [2.0, 0.0]
    first = torch.tensor([1.8, 0.6]) / math.hypot(1.8, 0.6)
    torch.testing.assert_close(h.running_centers, torch.stack([first, CENTERS[1]]))
    assert torch.equal(h.centers, CENTERS)  # frozen

    # The next batch is assigned with the running centers: cos((1.8, 0.6), (0.6, 0.8)) = 0.822
    # against 0.8 + 0.2.
    labels = step(h, torch.tensor([[0.6, 0.8]]), second_stage=False)
    assert labels.tolist() == [1]
    torch.testing.assert_close(h.duals, torch.tensor([0.2, 0.0]))  # 0 + 0.2; 0.2 - 0.8 -> 0
    assert h.counts.tolist() == [2.0, 1.0]

    running = h.running_centers.clone()
    h.end_epoch(second_stage=False, averaging_starts=False)
    assert torch.equal(h.centers, running)
    assert torch.equal(h.running_centers, running)
    assert h.counts.tolist() == [0.0, 0.0]
    torch.testing.assert_close(h.duals, torch.tensor([0.2, 0.0]))  # duals go on


def test_frozen_centers_are_not_moved_by_the_next_epoch() -> None:
    h = head()
    h.end_epoch(second_stage=False, averaging_starts=False)
    step(h, torch.tensor([[0.8, 0.6]]), second_stage=False)
    assert torch.equal(h.centers, CENTERS)
    torch.testing.assert_close(h.running_centers[0], torch.tensor([0.8, 0.6]))


def test_the_second_stage_assigns_with_frozen_centers_and_averages_them() -> None:
    h = head(min_ratio=0.0, dual_lr=0.0)
    third = torch.tensor([[0.6, 0.8]])
    h.end_epoch(second_stage=False, averaging_starts=False)

    # Running centers move, without normalisation; assignment goes by the frozen ones.
    for x, expected in (([[0.8, 0.6]], 0), ([[1.0, 0.0]], 0), ([[0.6, 0.8]], 1)):
        assert step(h, torch.tensor(x), second_stage=True).tolist() == [expected]
    torch.testing.assert_close(h.running_centers[0], torch.tensor([0.9, 0.3]))
    h.end_epoch(second_stage=True, averaging_starts=True)
    one = F.normalize(torch.tensor([[0.9, 0.3], [0.6, 0.8]]), dim=1)
    torch.testing.assert_close(h.centers, one)  # the first average is the epoch's own centers
    torch.testing.assert_close(h.running_centers, one)

    step(h, third, second_stage=True)
    h.end_epoch(second_stage=True, averaging_starts=False)  # weights 1/2 and 1/2
    two = F.normalize((one + torch.stack([one[0], third[0]])) / 2, dim=1)
    torch.testing.assert_close(h.centers, two)

    step(h, torch.tensor([[1.0, 0.0]]), second_stage=True)
    h.end_epoch(second_stage=True, averaging_starts=False)  # weights 2/3 and 1/3
    latest = torch.stack([torch.tensor([1.0, 0.0]), two[1]])
    torch.testing.assert_close(h.centers, F.normalize(2 / 3 * two + 1 / 3 * latest, dim=1))


@pytest.mark.parametrize("ratio", [0.4, 1.0])
def test_auto_assigns_in_a_stream_with_the_labels_so_far(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centers = F.normalize(torch.randn(4, 6, generator=generator), dim=1)
    x = F.normalize(torch.randn(50, 6, generator=generator), dim=1)
    h = head(centers=centers, n_ids=60, min_ratio=ratio, dual_rule="auto", dual_lr=1e9)
    bounds = SizeBounds(lower=ratio * 15, upper=math.inf if ratio < 1 else 15.0)
    stream = Stream.of(bounds, 60, 4, FIRST_STEP)
    before, duals, sizes = torch.full((50,), -1), torch.zeros(4), torch.zeros(4)
    for _ in range(3):
        expected, duals, sizes = assign_stream(
            x @ h.running_centers.T, before, duals, sizes, stream
        )
        before = h.step(x, before, second_stage=False)
        assert torch.equal(before, expected)
        assert torch.equal(h.duals, duals) and torch.equal(h.sizes, sizes)
        assert h.sizes.tolist() == torch.bincount(before, minlength=4).tolist()


def test_auto_carries_part_of_a_centers_weight_into_the_next_epoch() -> None:
    paper, auto = (head(dual_rule=rule, min_ratio=0.0) for rule in ("paper", "auto"))
    for h in (paper, auto):
        step(h, torch.tensor([[0.8, 0.6]] * 10), second_stage=False)
        h.end_epoch(second_stage=False, averaging_starts=False)
        step(h, torch.tensor([[1.0, 0.0]]), second_stage=False)
        assert h.counts.tolist() == [1.0, 0.0]
    torch.testing.assert_close(paper.running_centers[0], torch.tensor([1.0, 0.0]))
    carried = F.normalize(3 * torch.tensor([0.8, 0.6]) + torch.tensor([1.0, 0.0]), dim=0)
    torch.testing.assert_close(auto.running_centers[0], carried)  # 0.3 of 10 instances


def test_state_round_trip_in_the_second_stage() -> None:
    generator = torch.Generator().manual_seed(0)
    a = head()
    a.end_epoch(second_stage=True, averaging_starts=True)
    a.end_epoch(second_stage=True, averaging_starts=False)
    step(a, F.normalize(torch.randn(3, 2, generator=generator), dim=1), second_stage=True)
    b = head()
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    for h in (a, b):
        step(h, torch.tensor([[0.8, 0.6]]), second_stage=True)
        h.end_epoch(second_stage=True, averaging_starts=False)
    assert torch.equal(a.centers, b.centers)
    assert torch.equal(a.duals, b.duals)


def test_other_centers_are_refused_with_both_shapes() -> None:
    message = "saved centers are (2, 2), this head has (3, 2) (clusters, dim)"
    with pytest.raises(ValueError, match=re.escape(message)):
        head(centers=torch.eye(3, 2)).load_state_dict(head().state_dict())
