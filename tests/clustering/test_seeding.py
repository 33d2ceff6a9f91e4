"""Where centers start: k-means++ and a sample, by hand."""

from __future__ import annotations

import torch

from coke.clustering.candidates import Candidates
from coke.clustering.seeding import kmeans_plus_plus, sampled


def candidates(rows: list[list[float]]) -> Candidates:
    return Candidates.sample(torch.tensor(rows), None)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_of_each_far_group_is_chosen() -> None:
    """Two tight groups: the second center is drawn where the distance is, in the other one."""
    rows = [[0.0, i * 1e-4] for i in range(20)] + [[100.0, 0.0]]
    for seed in range(10):
        centers = kmeans_plus_plus(candidates(rows), 2, generator(seed))
        assert sorted(centers[:, 0].tolist()) == [0, 100]


def test_centers_are_different_points_while_there_are_some() -> None:
    rows = [[float(i), 0.0] for i in range(5)] * 3
    for choose in (kmeans_plus_plus,):
        centers = choose(candidates(rows), 5, generator(0))
        assert sorted(centers[:, 0].tolist()) == [0, 1, 2, 3, 4]
    assert len(kmeans_plus_plus(candidates(rows), 9, generator(0))) == 9


def test_a_sample_has_each_candidate_once() -> None:
    rows = [[float(i)] for i in range(30)]
    centers = sampled(candidates(rows), 30, generator(0))
    assert sorted(centers[:, 0].tolist()) == list(range(30))
    assert len(sampled(candidates(rows), 40, generator(0))) == 40
