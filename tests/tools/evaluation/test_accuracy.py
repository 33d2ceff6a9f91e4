"""Top-k accuracy by hand, with ties and with classes that cannot be predicted."""

from __future__ import annotations

import math

import pytest
import torch

from coke.tools.evaluation.accuracy import Accuracy, accuracy, topk_accuracy
from coke.tools.evaluation.knn_classifier import knn_classify

NONE = -math.inf


@pytest.mark.parametrize(("k", "expected"), [(1, 25.0), (2, 75.0), (3, 100.0), (5, 100.0)])
def test_topk_accuracy_by_hand(k: int, expected: float) -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.3, 0.6]])
    labels = torch.tensor([0, 1, 1, 0])
    assert topk_accuracy(scores, labels, k) == expected


@pytest.mark.parametrize(("k", "expected"), [(1, 0.0), (2, 100 / 3), (3, 200 / 3), (4, 100.0)])
def test_tied_classes_share_their_places(k: int, expected: float) -> None:
    """One class is above three tied ones, which share the places 2 to 4."""
    scores = torch.tensor([[1.0, 5.0, 1.0, 1.0]])
    for label in (0, 2, 3):
        assert topk_accuracy(scores, torch.tensor([label]), k) == pytest.approx(expected)
    assert topk_accuracy(scores, torch.tensor([1]), k) == 100.0


def test_constant_scores_give_chance_accuracy_for_every_class() -> None:
    scores = torch.zeros(3, 10)
    for labels in ([0, 0, 0], [9, 9, 9], [0, 4, 9]):
        assert topk_accuracy(scores, torch.tensor(labels), 1) == pytest.approx(10.0)
        assert topk_accuracy(scores, torch.tensor(labels), 5) == pytest.approx(50.0)


def test_a_class_without_a_score_has_no_place() -> None:
    scores = torch.tensor([[0.0, NONE, NONE, NONE], [NONE, 0.0, -1.0, NONE]])
    assert topk_accuracy(scores, torch.tensor([1, 3]), 4) == 0.0
    assert topk_accuracy(scores, torch.tensor([0, 2]), 4) == 100.0
    assert topk_accuracy(scores, torch.tensor([0, 2]), 1) == 50.0


def test_rounding_breaks_no_tie() -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-6]])
    assert topk_accuracy(scores, torch.tensor([0]), 1) == 50.0
    assert topk_accuracy(scores, torch.tensor([1]), 1) == 50.0


def test_five_classes_have_no_top_5() -> None:
    scores = torch.eye(6)[:, :5]
    found = accuracy(scores, torch.zeros(6, dtype=torch.int64), trained_classes=5)
    assert found.top5 is None
    six = accuracy(torch.eye(6), torch.arange(6), trained_classes=6)
    assert six == Accuracy(top1=100.0, top5=100.0)


def test_one_neighbour_fills_one_place() -> None:
    """Two training images of different classes are the same: chance picks the neighbour."""
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    query = torch.tensor([[1.0, 0.0]])
    scores = knn_classify(bank, labels, query, n_classes=7, k=1)
    found = accuracy(scores, torch.tensor([1]), trained_classes=7, places=1)
    assert found == Accuracy(top1=50.0, top5=50.0)
