"""The k-NN classifier by hand and against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from coke.tools.evaluation import knn_classifier as knn
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.training.live_memory import LiveMemory

BANK = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 4.0]])  # scaled to norm 1 inside
LABELS = torch.tensor([0, 1, 1])


def test_votes_by_hand() -> None:
    """Cosines of (1, 0) to the bank are 1, 0 and 0.6; the two nearest vote."""
    scores = knn_classify(
        BANK, LABELS, torch.tensor([[7.0, 0.0]]), n_classes=3, k=2, temperature=0.5
    )
    assert scores.dtype == torch.float32
    expected = [1.0, math.exp((0.6 - 1) / 0.5), 0.0]  # relative to the nearest
    assert scores.exp().tolist() == [pytest.approx(expected, rel=1e-5)]


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
    assert scores[0, :2].isfinite().all() and scores[0, 2] == -math.inf
    assert int(scores.argmax()) == int(LABELS[0])


def test_k_beyond_the_bank_uses_all_of_it() -> None:
    query = torch.tensor([[1.0, 0.0]])
    all_of_it = knn_classify(BANK, LABELS, query, n_classes=2, k=3)
    assert torch.equal(knn_classify(BANK, LABELS, query, n_classes=2, k=20), all_of_it)


def test_it_agrees_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_QUERIES", 7)  # 23 queries: several chunks, the last one short
    monkeypatch.setattr(knn, "_ROWS", 9)
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
        assert got[m].exp().tolist() == pytest.approx(votes, rel=1e-4)


def test_no_gradient_is_kept() -> None:
    bank = BANK.clone().requires_grad_()
    assert not knn_classify(bank, LABELS, bank, n_classes=2).requires_grad


def test_a_class_without_a_neighbour_has_no_score() -> None:
    scores = knn_classify(BANK, LABELS, torch.tensor([[1.0, 0.0]]), n_classes=4, k=1)
    assert scores.tolist() == [[0.0, -math.inf, -math.inf, -math.inf]]


def test_far_votes_keep_their_order_where_their_weights_underflow() -> None:
    """exp(-1 / 0.001) and exp(-2 / 0.001) are both 0 in float32."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([2, 0, 1])
    query = torch.tensor([[1.0, 0.0]])
    scores = knn_classify(bank, labels, query, n_classes=4, k=3, temperature=0.001)
    assert scores[0].tolist() == pytest.approx([-1000.0, -2000.0, 0.0, -math.inf])


def test_equally_near_images_share_the_last_place() -> None:
    """Of three images as near as the second place, each votes with the weight 1/3."""
    bank = torch.tensor([[0.0, 1.0], [0.6, 0.8], [0.6, -0.8], [3.0, 4.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 1, 0])
    query = torch.tensor([[1.0, 0.0]])
    scores = knn_classify(bank, labels, query, n_classes=3, k=2, temperature=0.5)
    vote = math.exp((0.6 - 1) / 0.5) / 3
    assert scores.exp().tolist() == [pytest.approx([1.0, 2 * vote, vote], rel=1e-5)]


def test_neither_the_order_of_images_nor_that_of_classes_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.randint(-2, 3, (60, 2), generator=generator).float()  # many equal directions
    labels = torch.randint(0, 5, (60,), generator=generator)
    queries = torch.randint(-2, 3, (30, 2), generator=generator).float()
    scores = knn_classify(grid, labels, queries, n_classes=5, k=4)
    rows = torch.randperm(60, generator=generator)
    renamed = torch.tensor([3, 0, 4, 1, 2])
    other = knn_classify(grid[rows], renamed[labels[rows]], queries, n_classes=5, k=4)
    torch.testing.assert_close(other[:, renamed], scores, rtol=1e-4, atol=1e-4)


def test_constant_features_give_each_class_its_share_of_the_images() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3)
    for value in (0.0, 7.0):
        x = torch.full((9, 4), value)
        scores = knn_classify(x, labels, x[:2], n_classes=2, k=3)
        assert scores.exp().tolist() == [pytest.approx([2.0, 1.0])] * 2


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 1e38])
def test_scale_does_not_matter(scale: float) -> None:
    queries = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    bank = torch.tensor([[0.9, 0.0], [0.0, 0.9], [0.6, 0.8]])
    plain = knn_classify(bank, LABELS, queries, n_classes=2, k=2)
    scaled = knn_classify(bank * scale, LABELS, queries * scale, n_classes=2, k=2)
    torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["normal", "grid", "constant", "float16"])
def test_chunks_give_what_one_matrix_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where more images are equally near than are kept, in chunks far apart."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 6, generator=generator) for n in (300, 40))
    if kind == "grid":
        bank, queries = bank[:, :2].round(), queries[:, :2].round()
    elif kind == "constant":
        bank, queries = torch.ones_like(bank), torch.ones_like(queries)
    elif kind == "float16":
        bank, queries = bank.half(), queries.half()
    labels = torch.randint(0, 4, (300,), generator=generator)
    whole = knn_classify(bank, labels, queries, n_classes=5, k=7)
    again = knn_classify(bank, labels, queries, n_classes=5, k=7)
    assert torch.equal(whole, again)
    monkeypatch.setattr(knn, "_QUERIES", 16)
    monkeypatch.setattr(knn, "_ROWS", 11)
    chunked = knn_classify(bank, labels, queries, n_classes=5, k=7)
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(chunked == -math.inf, whole == -math.inf)
    if kind == "constant":  # seven places, shared by all 300
        expected = torch.bincount(labels, minlength=5) * 7 / 300
        assert chunked.exp().tolist() == [pytest.approx(expected.tolist(), rel=1e-4)] * 40


def test_memory_does_not_grow_with_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a matrix of all cosines nor a second bank of unit norm: chunks of 256 images."""
    monkeypatch.setattr(knn, "_ROWS", 256)
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 32, generator=generator) for n in (8192, 50))
    labels = torch.randint(0, 3, (8192,), generator=generator)
    peaks = []
    for n in (512, 8192):
        with LiveMemory() as memory:
            knn_classify(bank[:n], labels[:n], queries, n_classes=3)
        peaks.append(memory.peak)
    assert peaks[1] < 1.2 * peaks[0] and peaks[1] < bank.nbytes / 2
