"""The linear probe learns what is linear, the same way every time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from coke.tools.evaluation.linear_classifier import LinearConfig, LinearProbe, fit_on_cached

CPU = torch.device("cpu")


def blobs(n: int = 90, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes far apart, in features of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = 6 * torch.nn.functional.one_hot(labels, 3) + torch.randn(n, 3, generator=generator)
    return x * torch.tensor([1e-3, 1.0, 1e3]) + torch.tensor([5.0, 0.0, -1e4]), labels


def test_separable_data_is_learnt_completely() -> None:
    x, labels = blobs()
    probe = fit_on_cached(x, labels, 3, LinearConfig(epochs=30, batch_size=30))
    assert (probe.scores(x).argmax(1) == labels).all()
    other, other_labels = blobs(seed=1)
    assert (probe.scores(other).argmax(1) == other_labels).float().mean() > 0.98


def test_labels_without_meaning_are_not_learnt() -> None:
    x, _ = blobs()
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (90,), generator=generator)
    probe = fit_on_cached(x, labels, 3, LinearConfig(epochs=30, batch_size=30))
    assert (probe.scores(x).argmax(1) == labels).float().mean() < 0.7


def test_training_is_deterministic() -> None:
    x, labels = blobs()
    config = LinearConfig(epochs=3, batch_size=16)
    torch.manual_seed(0)
    first = fit_on_cached(x, labels, 3, config).scores(x)
    torch.manual_seed(1)
    again = fit_on_cached(x, labels, 3, config).scores(x)
    other = fit_on_cached(x, labels, 3, LinearConfig(epochs=3, batch_size=16, seed=1)).scores(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_larger_than_the_data_is_the_whole_data() -> None:
    x, labels = blobs(12)
    probe = fit_on_cached(x, labels, 3, LinearConfig(epochs=40, batch_size=1024))
    assert (probe.scores(x).argmax(1) == labels).all()


def test_an_untrained_classifier_scores_all_classes_equally() -> None:
    probe = LinearProbe(3, 4, LinearConfig(), CPU)
    assert probe.scores(torch.randn(5, 3)).tolist() == [[0.0] * 4] * 5
    x, labels = blobs(8)
    assert float(probe.step(x, labels, 0.0)) == pytest.approx(math.log(4))


def test_first_step_by_hand() -> None:
    """Two rows standardise to -1 and +1; at zero weights each class has probability 1/2."""
    config = LinearConfig(lr=0.5, batch_size=512, momentum=0.0, weight_decay=0.0)
    probe = LinearProbe(1, 2, config, CPU)
    x, labels = torch.tensor([[10.0], [30.0]]), torch.tensor([0, 1])
    probe.step(x, labels, progress=0.5)
    # Gradient of the weights: mean of (1/2 - 1) * -1 and (1/2) * 1 = 0.5 for class 0, -0.5 for
    # class 1; none for the biases. lr = 0.5 * 512 / 256 * (1 + cos(pi / 2)) / 2 = 0.5.
    # Statistics are averaged over all batches, here one: mean 20, unbiased variance 200.
    expected = (torch.tensor([[10.0], [30.0]]) - 20) / math.sqrt(200 + 1e-5)
    scores = probe.scores(x)
    torch.testing.assert_close(scores, expected * torch.tensor([[-0.25, 0.25]]))


def test_scoring_does_not_change_the_statistics() -> None:
    x, labels = blobs()
    probe = fit_on_cached(x, labels, 3, LinearConfig(epochs=2, batch_size=30))
    before = probe.scores(x)
    probe.scores(x + 1000)
    assert torch.equal(probe.scores(x), before)
