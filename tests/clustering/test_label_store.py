"""Labels by id: how they are stored, averaged and restored."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import Tensor

from coke.clustering.label_store import LabelStore, SparseLabels


@pytest.mark.parametrize(
    ("k", "size"), [(2, 1), (255, 1), (256, 2), (32_768, 2), (65_535, 2), (65_536, 4), (10**6, 4)]
)
def test_labels_take_the_fewest_bytes_that_hold_them(k: int, size: int) -> None:
    store = LabelStore(8, (k,))
    assert store.bytes_per_label == size
    assert store.read(torch.arange(8)).tolist() == [[-1] * 8]
    labels = torch.tensor([0, 1, k // 2 - 1, k // 2, k - 2, k - 1])
    store.write(torch.tensor([7, 1, 2, 3, 4, 0]), labels[None], epoch=3)
    read = store.read(torch.tensor([7, 1, 2, 3, 4, 0, 5, 6]))
    assert read.dtype == torch.int64
    assert read.tolist() == [[*labels.tolist(), -1, -1]]


def test_every_label_of_two_bytes_comes_back() -> None:
    labels = torch.arange(65_535)
    store = LabelStore(65_536, (65_535,))
    store.write(labels, labels[None], epoch=0)
    assert torch.equal(store.read(labels)[0], labels)
    assert store.read(torch.tensor([65_535])).tolist() == [[-1]]


def test_heads_are_kept_apart_and_the_largest_decides_the_type() -> None:
    store = LabelStore(3, (4, 300))
    assert store.bytes_per_label == 2
    store.write(torch.tensor([2, 0]), torch.tensor([[3, 1], [299, 7]]), epoch=0)
    assert store.read(torch.arange(3)).tolist() == [[1, -1, 3], [7, -1, 299]]
    assert len(store) == 3


def test_it_knows_the_epoch_it_holds() -> None:
    store = LabelStore(4, (3,))
    assert store.epoch == -1
    store.write(torch.tensor([0]), torch.tensor([[2]]), epoch=5)
    assert store.epoch == 5
    store.write(torch.tensor([0]), torch.tensor([[1]]), epoch=6)
    assert store.epoch == 6
    assert store.read(torch.tensor([0, 1])).tolist() == [[1, -1]]


@pytest.mark.parametrize("k", [3, 65_535, 65_536])
def test_state_round_trip(k: int) -> None:
    store = LabelStore(5, (k, 2))
    store.write(torch.tensor([1, 4]), torch.tensor([[k - 1, 0], [1, 0]]), epoch=9)
    other = LabelStore(5, (k, 2))
    other.load_state_dict(copy.deepcopy(store.state_dict()))
    assert torch.equal(other.read(torch.arange(5)), store.read(torch.arange(5)))
    assert other.epoch == 9
    other.write(torch.tensor([0]), torch.tensor([[0], [0]]), epoch=10)
    assert store.read(torch.tensor([0])).tolist() == [[-1], [-1]]  # restored, not shared


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (LabelStore(6, (3,)), "saved labels are (1, 6) torch.uint8, this label store is (1, 5)"),
        (LabelStore(5, (3, 3)), "saved labels are (2, 5) torch.uint8, this label store is (1, 5)"),
        (LabelStore(5, (300,)), "saved labels are (1, 5) torch.int16, this label store is (1, 5)"),
    ],
)
def test_other_labels_are_refused_with_both_shapes(other: LabelStore, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LabelStore(5, (3,)).load_state_dict(other.state_dict())


def test_an_empty_store_is_refused() -> None:
    with pytest.raises(ValueError, match="n_ids is 0"):
        LabelStore(0, (3,))


def dense(labels: SparseLabels) -> list[dict[int, float]]:
    """Per id, cluster -> weight, empty slots left out."""
    return [
        {int(c): float(w) for c, w in zip(cs, ws, strict=True) if w > 0}
        for cs, ws in zip(labels.clusters_NS, labels.weights_NS, strict=True)
    ]


def average(labels: SparseLabels, ids: list[int], new: list[int], weight: float) -> None:
    labels.average_in(torch.tensor(ids), torch.tensor(new), weight)


def test_averaging_by_hand() -> None:
    labels = SparseLabels(torch.tensor([4, 0, 2]), size=2, n_clusters=6)
    assert dense(labels) == [{4: 1.0}, {0: 1.0}, {2: 1.0}]

    average(labels, [0, 1], [4, 3], 0.5)
    assert dense(labels) == [{4: 1.0}, {0: 0.5, 3: 0.5}, {2: 1.0}]  # id 2 was not asked

    # A listed cluster is topped up in place: 0.5 * 2/3 + 1/3; the other shrinks.
    average(labels, [1], [3], 1 / 3)
    assert dense(labels)[1] == pytest.approx({0: 1 / 3, 3: 2 / 3})

    # A new one takes the slot of the smallest weight; the rest is rescaled to 1 - 0.25.
    average(labels, [1], [5], 0.25)
    assert dense(labels)[1] == pytest.approx({3: 0.75, 5: 0.25})


def test_three_slots_by_hand() -> None:
    labels = SparseLabels(torch.tensor([0]), size=3, n_clusters=6)
    average(labels, [0], [1], 0.5)  # 0: 0.5, 1: 0.5
    average(labels, [0], [2], 0.2)  # 0: 0.4, 1: 0.4, 2: 0.2
    assert dense(labels)[0] == pytest.approx({0: 0.4, 1: 0.4, 2: 0.2})
    average(labels, [0], [1], 0.25)  # 0: 0.3, 1: 0.3 + 0.25, 2: 0.15
    assert dense(labels)[0] == pytest.approx({0: 0.3, 1: 0.55, 2: 0.15})
    average(labels, [0], [5], 0.15)  # 2 goes; 0.3 and 0.55 already sum to 0.85
    assert dense(labels)[0] == pytest.approx({0: 0.3, 1: 0.55, 5: 0.15})
    average(labels, [0], [3], 0.32)  # 5 goes; 0.3 and 0.55 rescaled by 0.68 / 0.85 = 0.8
    assert dense(labels)[0] == pytest.approx({0: 0.24, 1: 0.44, 3: 0.32})


def test_weight_one_forgets_the_past() -> None:
    labels = SparseLabels(torch.tensor([4, 0]), size=3, n_clusters=6)
    average(labels, [0, 1], [2, 5], 0.3)
    average(labels, [0, 1], [1, 5], 1.0)
    assert dense(labels) == [{1: 1.0}, {5: 1.0}]


def test_a_single_slot_holds_the_newest_with_all_the_weight() -> None:
    labels = SparseLabels(torch.tensor([4]), size=1, n_clusters=6)
    average(labels, [0], [2], 0.3)
    assert dense(labels)[0] == pytest.approx({2: 1.0})


def test_empty_slots_are_not_cluster_zero() -> None:
    """Slots start as (0, weight 0): a first label of 0 must not be taken for a listed one."""
    labels = SparseLabels(torch.tensor([3]), size=4, n_clusters=6)
    average(labels, [0], [0], 0.4)
    assert dense(labels)[0] == pytest.approx({3: 0.6, 0: 0.4})
    average(labels, [0], [0], 0.5)
    assert dense(labels)[0] == pytest.approx({3: 0.3, 0: 0.7})


def test_weights_stay_a_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = SparseLabels(torch.randint(0, 9, (20,), generator=generator), size=4, n_clusters=9)
    for t in range(2, 40):
        new = torch.randint(0, 9, (20,), generator=generator)
        labels.average_in(torch.arange(20), new, 1 / t)
        for row, label in zip(dense(labels), new.tolist(), strict=True):
            assert sum(row.values()) == pytest.approx(1, abs=1e-5)
            assert row[label] >= 1 / t - 1e-6
            assert len(row) <= 4


def test_targets_are_a_softmax_over_the_listed_clusters() -> None:
    labels = SparseLabels(torch.tensor([4, 1]), size=3, n_clusters=6)
    average(labels, [0], [2], 0.25)  # id 0: 4: 0.75, 2: 0.25
    soft = labels.targets(torch.tensor([1, 0]), temperature=0.5)
    assert soft.dtype == torch.float32
    high, low = math.exp(0.75 / 0.5), math.exp(0.25 / 0.5)
    expected = torch.zeros(2, 6)
    expected[0, 1] = 1  # the only listed cluster gets everything
    expected[1, 4], expected[1, 2] = high / (high + low), low / (high + low)
    torch.testing.assert_close(soft, expected)


@pytest.mark.parametrize("k", [32_767, 32_768, 65_536, 100_000])
def test_large_labels_survive(k: int) -> None:
    labels = SparseLabels(torch.tensor([k - 1]), size=2, n_clusters=k)
    average(labels, [0], [k - 2], 0.5)
    assert dense(labels)[0] == {k - 1: 0.5, k - 2: 0.5}
    soft: Tensor = labels.targets(torch.tensor([0]), 0.5)
    assert soft.nonzero().tolist() == [[0, k - 2], [0, k - 1]]


def test_sparse_state_round_trip() -> None:
    labels = SparseLabels(torch.tensor([4, 1]), size=3, n_clusters=6)
    average(labels, [0], [2], 0.25)
    other = SparseLabels(torch.tensor([0, 0]), size=3, n_clusters=6)
    other.load_state_dict(labels.state_dict())
    assert dense(other) == dense(labels)
    average(other, [0], [5], 0.5)
    assert dense(labels)[0] == {4: 0.75, 2: 0.25}  # restored, not shared


def test_sparse_labels_of_another_size_are_refused() -> None:
    saved = SparseLabels(torch.tensor([4, 1]), size=3, n_clusters=6).state_dict()
    with pytest.raises(ValueError, match="3"):
        SparseLabels(torch.tensor([4, 1]), size=5, n_clusters=6).load_state_dict(saved)


def test_sparse_labels_are_restored_to_their_own_device() -> None:
    saved = SparseLabels(torch.tensor([4, 1]), size=3, n_clusters=6).state_dict()
    elsewhere = SparseLabels(torch.tensor([4, 1], device="meta"), size=3, n_clusters=6)
    elsewhere.load_state_dict(saved)
    assert elsewhere.weights_NS.device.type == elsewhere.clusters_NS.device.type == "meta"
