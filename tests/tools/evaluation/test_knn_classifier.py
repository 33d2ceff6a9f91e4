"""The k-NN classifier by hand and against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from coke.tools.evaluation import knn_classifier as knn
from coke.tools.evaluation.knn_classifier import knn_classify, topk_accuracy

BANK = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 4.0]])  # scaled to norm 1 inside
LABELS = torch.tensor([0, 1, 1])


def test_votes_by_hand() -> None:
    """Cosines of (1, 0) to the bank are 1, 0 and 0.6; the two nearest vote."""
    scores = knn_classify(
        BANK, LABELS, torch.tensor([[7.0, 0.0]]), n_classes=3, k=2, temperature=0.5
    )
    assert scores.dtype == torch.float32
    expected = [1.0, math.exp((0.6 - 1) / 0.5), 0.0]  # relative to the nearest
    assert scores.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_a_cold_vote_follows_the_nearest_a_warm_one_the_many() -> None:
    query = torch.tensor([[1.0, 0.1]])
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    labels = torch.tensor([0, 1, 1])
    cold = knn_classify(bank, labels, query, n_classes=2, k=3, temperature=0.07)
    warm = knn_classify(bank, labels, query, n_classes=2, k=3, temperature=10.0)
    assert int(cold.argmax()) == 0
    assert int(warm.argmax()) == 1


def test_no_temperature_overflows() -> None:
    """exp(1 / 0.001) is no float32; the order of the votes is kept all the same."""
    query = torch.tensor([[1.0, 0.0]])
    scores = knn_classify(BANK, LABELS, query, n_classes=3, k=3, temperature=0.001)
    assert scores.isfinite().all()
    assert int(scores.argmax()) == int(LABELS[0])


def test_k_beyond_the_bank_uses_all_of_it() -> None:
    query = torch.tensor([[1.0, 0.0]])
    all_of_it = knn_classify(BANK, LABELS, query, n_classes=2, k=3)
    assert torch.equal(knn_classify(BANK, LABELS, query, n_classes=2, k=20), all_of_it)


def test_it_agrees_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_CHUNK", 7)  # 23 queries: several chunks, the last one short
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(40, 5, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    queries = torch.randn(23, 5, generator=generator)
    got = knn_classify(bank, labels, queries, n_classes=4, k=6, temperature=0.2)
    for m in range(23):
        cosines = [
            (float(queries[m] @ bank[i] / (queries[m].norm() * bank[i].norm())), int(labels[i]))
            for i in range(40)
        ]
        votes = [0.0] * 4
        for cosine, label in sorted(cosines, reverse=True)[:6]:
            votes[label] += math.exp((cosine - max(cosines)[0]) / 0.2)
        assert got[m].tolist() == pytest.approx(votes, rel=1e-4)


def test_no_gradient_is_kept() -> None:
    bank = BANK.clone().requires_grad_()
    assert not knn_classify(bank, LABELS, bank, n_classes=2).requires_grad


@pytest.mark.parametrize(("k", "expected"), [(1, 25.0), (2, 75.0), (3, 100.0), (5, 100.0)])
def test_topk_accuracy_by_hand(k: int, expected: float) -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.3, 0.6]])
    labels = torch.tensor([0, 1, 1, 0])
    assert topk_accuracy(scores, labels, k) == expected
