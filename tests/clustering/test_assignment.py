"""The rules, by hand and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering.assignment import (
    assign,
    best_columns,
    update_centers_,
    update_duals,
)
from coke.clustering.scratch import Scratch
from coke.clustering.sizes import SizeBounds

CENTERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
#: Similarities to the two centers: (1, 0), (0.8, 0.6), (0.6, 0.8).
FEATURES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])


def random_batch(b: int, d: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(b, d, generator=generator), dim=1)
    return features, F.normalize(torch.randn(k, d, generator=generator), dim=1)


@pytest.mark.parametrize(
    ("duals", "expected"),
    [
        ((0.0, 0.0), [0, 0, 1]),
        ((0.0, 0.3), [0, 1, 1]),  # 0.6 + 0.3 beats 0.8
        ((0.0, 1.1), [1, 1, 1]),
        ((0.3, 0.0), [0, 0, 0]),
        ((-1.1, 0.0), [1, 1, 1]),
    ],
)
def test_assign_by_hand(duals: tuple[float, float], expected: list[int]) -> None:
    labels = assign(FEATURES, CENTERS, torch.tensor(duals))
    assert labels.dtype == torch.int64
    assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        # Shares 3/4, 1/4, 0; each is due at least 0.2; the step is 2 * (share - 0.2).
        (0.2, [0.5 - 1.1, 0.1 - 0.1, 0.0 + 0.4]),  # an equality: any sign
        (math.inf, [0.0, 0.0, 0.4]),
        (0.5, [0.0, 0.0, 0.4]),  # 0.5 - 2 * (3/4 - 1/2) is 0, which the upper bound leaves there
        (0.4, [-0.2, 0.0, 0.4]),  # 0.5 - 2 * (3/4 - 0.4)
    ],
)
def test_update_duals_by_hand(upper: float, expected: list[float]) -> None:
    duals = torch.tensor([0.5, 0.1, 0.0])
    shares = SizeBounds(lower=0.2, upper=upper)
    moved = update_duals(duals, torch.tensor([0, 0, 1, 0]), lr=2.0, shares=shares)
    torch.testing.assert_close(moved, torch.tensor(expected), atol=1e-6, rtol=0)
    assert duals.tolist() == pytest.approx([0.5, 0.1, 0.0])  # the input is left alone


def test_free_duals_keep_their_sum_when_the_bound_is_an_equality() -> None:
    labels = torch.tensor([0, 0, 0, 2])
    shares = SizeBounds(lower=0.25, upper=0.25)
    moved = update_duals(torch.zeros(4), labels, lr=1.0, shares=shares)
    assert moved.tolist() == [-0.5, 0.25, 0.0, 0.25]


@pytest.mark.parametrize("batch", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("k", [2, 300, 512, 777, 1024])
def test_assign_agrees_with_argmax(batch: int, k: int) -> None:
    """Computing in chunks of rows does not change the result. Each center occurs twice."""
    features, centers = random_batch(batch, 4, k)
    centers[1::2] = centers[: k // 2 * 2 : 2]  # of equal centers the first one wins
    duals = torch.rand(k // 2 + 1, generator=torch.Generator().manual_seed(1))
    duals = duals.repeat_interleave(2)[:k].contiguous()
    scratch = Scratch()
    expected = (features @ centers.T + duals).argmax(1)
    for _ in range(2):  # memory is used again
        assert torch.equal(assign(features, centers, duals, scratch), expected)
    assert (expected % 2 == 0).all()


@pytest.mark.parametrize("k", [511, 512, 513, 767, 768, 1000])
def test_best_column_in_every_place(k: int) -> None:
    """Each column is the best of one row."""
    values = torch.rand(k, k, generator=torch.Generator().manual_seed(0))
    values.fill_diagonal_(2)
    assert best_columns(values).tolist() == list(range(k))
    assert best_columns(torch.zeros(3, k)).tolist() == [0, 0, 0]
    assert best_columns(torch.full((2, k), -torch.inf)).tolist() == [0, 0]


def test_update_centers_by_hand() -> None:
    centers = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    counts = torch.tensor([3.0, 0.0, 5.0])
    features = torch.tensor([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    labels = torch.tensor([0, 1, 1])
    mean, total = centers.clone(), counts.clone()
    update_centers_(mean, total, features, labels, normalize=False)
    assert total.tolist() == [4.0, 2.0, 5.0]
    # 3 of (1, 0) and 1 of (0, 1); the mean of two, the old center having no weight; untouched.
    expected = torch.tensor([[0.75, 0.25], [0.7, 0.7], [0.6, 0.8]])
    torch.testing.assert_close(mean, expected)
    unit = centers.clone()
    update_centers_(unit, counts, features, labels, normalize=True)
    torch.testing.assert_close(unit[0], torch.tensor([3.0, 1.0]) / math.sqrt(10))
    torch.testing.assert_close(unit[1], torch.tensor([1.0, 1.0]) / math.sqrt(2))
    assert unit[2].tolist() == centers[2].tolist()


@pytest.mark.parametrize("normalize", [False, True])
def test_update_centers_agrees_with_a_loop_over_clusters(normalize: bool) -> None:
    features, centers = random_batch(300, 5, 40)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 30, (300,), generator=generator)  # ten clusters get nothing
    counts = torch.randint(0, 4, (40,), generator=generator).float()
    moved, total = centers.clone(), counts.clone()
    update_centers_(moved, total, features, labels, normalize=normalize)
    for k in range(40):
        own = features[labels == k]
        assert total[k] == counts[k] + len(own)
        if not len(own):
            assert torch.equal(moved[k], centers[k])
            continue
        expected = (centers[k] * counts[k] + own.sum(0)) / total[k]
        if normalize:
            expected = expected / expected.norm()
        torch.testing.assert_close(moved[k], expected)


def test_batches_add_up_to_the_mean_of_the_epoch() -> None:
    features, centers = random_batch(40, 5, 3)
    labels = torch.arange(40) % 3
    running, counts = centers.clone(), torch.zeros(3)
    for rows in torch.arange(40).split(7):
        update_centers_(running, counts, features[rows], labels[rows], normalize=False)
    for k in range(3):
        torch.testing.assert_close(running[k], features[labels == k].mean(0))
    assert counts.tolist() == [14.0, 13.0, 13.0]
