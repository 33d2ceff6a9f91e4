"""The discrimination loss by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.model.loss import (
    ViewFeatures,
    coke_loss,
    discrimination_loss,
    has_label,
    reference,
    views_loss,
)

CENTERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
FEATURES = torch.tensor([[0.8, 0.6], [0.0, 1.0]])


def random_features(seed: int, rows: int, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def test_two_clusters_by_hand() -> None:
    """At temperature 0.5 the logits are (1.6, 1.2) and (0, 2)."""
    loss = discrimination_loss(FEATURES, CENTERS, torch.tensor([0, 0]), 0.5)
    expected = (math.log(1 + math.exp(-0.4)) + math.log(1 + math.exp(2.0))) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_soft_targets_by_hand() -> None:
    soft = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    loss = discrimination_loss(FEATURES, CENTERS, soft, 0.5)
    first = 0.75 * math.log(1 + math.exp(-0.4)) + 0.25 * math.log(1 + math.exp(0.4))
    expected = (first + math.log(1 + math.exp(-2.0))) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_hard_labels_equal_one_hot_soft_labels() -> None:
    x, centers = random_features(0, 7), random_features(1, 4)
    labels = torch.tensor([0, 3, 1, 1, 2, 0, 3])
    hard = discrimination_loss(x, centers, labels, 0.1)
    soft = discrimination_loss(x, centers, F.one_hot(labels, 4).float(), 0.1)
    torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_beta_mixes_predictor_and_projector(beta: float) -> None:
    projected, predicted = random_features(0, 6), random_features(1, 6)
    centers = [random_features(2, 3), random_features(3, 4)]
    targets = [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 2, 1, 0, 3, 2])]

    def plain(x: Tensor) -> float:
        each = [
            -float(F.log_softmax(x @ c.T / 0.2, 1)[i, t[i]])
            for c, t in zip(centers, targets, strict=True)
            for i in range(6)
        ]
        return sum(each) / len(each)

    loss = coke_loss(projected, predicted, centers, targets, temperature=0.2, beta=beta)
    expected = beta * plain(predicted) + (1 - beta) * plain(projected)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_without_a_predictor_beta_does_not_matter() -> None:
    x, centers, targets = random_features(0, 3), [random_features(1, 4)], [torch.tensor([0, 1, 2])]
    losses = [
        float(coke_loss(x, None, centers, targets, temperature=0.1, beta=beta))
        for beta in (0.0, 0.5, 1.0)
    ]
    alone = float(discrimination_loss(x, centers[0], targets[0], 0.1))
    assert losses == pytest.approx([alone] * 3)


def test_a_soft_label_of_zeros_is_none() -> None:
    """An image without soft labels (first seen in the second stage) is left out, as label -1 is."""
    x, labels = F.normalize(torch.randn(5, 3), dim=1), torch.tensor([2, -1, 0, 1, -1])
    centers = F.normalize(torch.randn(4, 3), dim=1)
    soft = F.one_hot(labels.clamp(min=0), 4) * (labels >= 0).unsqueeze(1)
    assert (
        has_label(soft).tolist() == has_label(labels).tolist() == [True, False, True, True, False]
    )
    found = discrimination_loss(x, centers, soft.float(), 0.1)
    torch.testing.assert_close(found, discrimination_loss(x, centers, labels, 0.1))
    assert discrimination_loss(x, centers, torch.zeros(5, 4), 0.1) == 0


def test_heads_may_mix_hard_and_soft_targets() -> None:
    x = random_features(0, 3)
    centers = [random_features(1, 4), random_features(2, 2)]
    labels = torch.tensor([0, 3, 1])
    soft = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    loss = coke_loss(x, None, centers, [labels, soft], temperature=0.1)
    halves = [
        discrimination_loss(x, c, t, 0.1) for c, t in zip(centers, [labels, soft], strict=True)
    ]
    torch.testing.assert_close(loss, (halves[0] + halves[1]) / 2)


def test_gradient_flows_to_features_only() -> None:
    """d loss / d x = (softmax - onehot) @ centers / temperature; frozen centers need none."""
    x, centers = random_features(0, 4).requires_grad_(), random_features(1, 3)
    labels = torch.tensor([0, 1, 2, 0])
    coke_loss(x, None, [centers], [labels], temperature=0.3).backward()
    assert x.grad is not None and centers.grad is None
    with torch.no_grad():
        wrong = F.softmax(x @ centers.T / 0.3, 1) - F.one_hot(labels, 3)
        torch.testing.assert_close(x.grad, wrong @ centers / 0.3 / 4)


def test_a_reference_by_hand() -> None:
    """Logits (1.6, 1.2) and (0, 2): the first cluster has a share of 1 / (1 + e^-0.4) and so on."""
    (p,) = reference(FEATURES, [CENTERS], 0.5)
    first, second = 1 / (1 + math.exp(-0.4)), 1 / (1 + math.exp(2.0))
    torch.testing.assert_close(p, torch.tensor([[first, 1 - first], [second, 1 - second]]))


def test_two_views_by_hand() -> None:
    """One image of label 0: its views have logits (1.6, 1.2) and (0, 2), alpha is 1/4."""
    views: list[ViewFeatures] = [(FEATURES[:1], None), (FEATURES[1:], None)]
    loss = views_loss(views, [CENTERS], [torch.tensor([0])], temperature=0.5, alpha=0.25)
    p1, p2 = 1 / (1 + math.exp(-0.4)), 1 / (1 + math.exp(2.0))  # of cluster 0
    first = [math.log(1 + math.exp(-0.4)), math.log(1 + math.exp(0.4))]  # -log p, per cluster
    second = [math.log(1 + math.exp(2.0)), math.log(1 + math.exp(-2.0))]
    loss_1 = 0.25 * first[0] + 0.75 * (p2 * first[0] + (1 - p2) * first[1])
    loss_2 = 0.25 * second[0] + 0.75 * (p1 * second[0] + (1 - p1) * second[1])
    assert float(loss) == pytest.approx((loss_1 + loss_2) / 2, abs=1e-6)


def test_a_small_view_by_hand() -> None:
    """Half of it is the large views' loss; a small view at (0.6, 0.8) learns from their mean."""
    large: list[ViewFeatures] = [(FEATURES[:1], None), (FEATURES[1:], None)]
    small: list[ViewFeatures] = [(torch.tensor([[0.6, 0.8]]), None)]
    label = [torch.tensor([0])]
    loss = views_loss(large, [CENTERS], label, temperature=0.5, alpha=0.25, small=small)
    mean = (1 / (1 + math.exp(-0.4)) + 1 / (1 + math.exp(2.0))) / 2
    costs = [math.log(1 + math.exp(0.4)), math.log(1 + math.exp(-0.4))]  # logits (1.2, 1.6)
    small_loss = 0.25 * costs[0] + 0.75 * (mean * costs[0] + (1 - mean) * costs[1])
    large_loss = float(views_loss(large, [CENTERS], label, temperature=0.5, alpha=0.25))
    assert float(loss) == pytest.approx(large_loss / 2 + small_loss / 2, abs=1e-6)


SIZES = (3, 4)
MANY_CENTERS = [random_features(10 + k, k) for k in SIZES]
LABELS = [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 2, 1, 0, 3, 2])]


def random_views(count: int, *, predictor: bool = True, seed: int = 0) -> list[ViewFeatures]:
    return [
        (random_features(seed + v, 6), random_features(seed + 50 + v, 6) if predictor else None)
        for v in range(count)
    ]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("small", [0, 3])
def test_the_mixtures_are_those_of_the_paper_and_the_release(beta: float, small: int) -> None:
    """Written out image by image: Alg. 2 for the large views; for a small one twice alpha of the
    label and 1 - alpha of the sum of both distributions, all halved."""
    alpha, temperature = 0.2, 0.3
    large, crops = random_views(2), random_views(small, seed=100)

    def log_p(x: Tensor, head: int) -> Tensor:
        return F.log_softmax(x @ MANY_CENTERS[head].T / temperature, dim=0)

    def cross_entropy(view: ViewFeatures, i: int, head: int, target: Tensor) -> float:
        projected, predicted = view
        assert predicted is not None
        proj, pred = log_p(projected[i], head), log_p(predicted[i], head)
        return -float(((1 - beta) * proj + beta * pred) @ target)

    large_terms, small_terms = [], []
    for i in range(6):
        for head, k in enumerate(SIZES):
            label = F.one_hot(LABELS[head][i], k).float()
            p1, p2 = (log_p(view[0][i], head).exp() for view in large)
            large_terms += [
                cross_entropy(large[0], i, head, alpha * label + (1 - alpha) * p2),
                cross_entropy(large[1], i, head, alpha * label + (1 - alpha) * p1),
            ]
            target = 2 * alpha * label + (1 - alpha) * (p1 + p2)
            small_terms += [cross_entropy(crop, i, head, target) / 2 for crop in crops]
    expected = sum(large_terms) / len(large_terms)
    if small:
        expected = (expected + sum(small_terms) / len(small_terms)) / 2
    got = views_loss(
        large,
        MANY_CENTERS,
        LABELS,
        temperature=temperature,
        alpha=alpha,
        beta=beta,
        small=crops,
    )
    assert float(got) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("small", [0, 2])
def test_more_views_learn_from_the_mean_of_the_others(small: int) -> None:
    """Written out image by image, for one head: each large view's target is alpha of the label and
    the rest of the mean of the other two; a small view's of all three."""
    alpha, temperature, centers = 0.2, 0.3, MANY_CENTERS[0]
    large = random_views(3, predictor=False)
    crops = random_views(small, predictor=False, seed=100)
    got = views_loss(
        large, [centers], LABELS[:1], temperature=temperature, alpha=alpha, small=crops
    )

    def log_p(view: ViewFeatures, i: int) -> Tensor:
        return F.log_softmax(view[0][i] @ centers.T / temperature, dim=0)

    large_terms, small_terms = [], []
    for i in range(6):
        label = F.one_hot(LABELS[0][i], 3).float()
        p = [log_p(view, i).exp() for view in large]
        for v, others in enumerate(((p[1] + p[2]) / 2, (p[0] + p[2]) / 2, (p[0] + p[1]) / 2)):
            target = alpha * label + (1 - alpha) * others
            large_terms.append(-float(log_p(large[v], i) @ target))
        target = alpha * label + (1 - alpha) * (p[0] + p[1] + p[2]) / 3
        small_terms += [-float(log_p(crop, i) @ target) for crop in crops]
    expected = sum(large_terms) / len(large_terms)
    if small:
        expected = (expected + sum(small_terms) / len(small_terms)) / 2
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_one_large_view_learns_its_label_and_teaches_small_ones() -> None:
    large, crops = random_views(1), random_views(2, seed=100)
    alone = coke_loss(*large[0], MANY_CENTERS, LABELS, temperature=0.3, beta=0.4)
    mixed: dict[str, Any] = {"temperature": 0.3, "beta": 0.4, "alpha": 0.2}
    torch.testing.assert_close(views_loss(large, MANY_CENTERS, LABELS, **mixed), alone)
    taught = reference(large[0][0], MANY_CENTERS, 0.3)
    small = [coke_loss(*crop, MANY_CENTERS, LABELS, references=taught, **mixed) for crop in crops]
    got = views_loss(large, MANY_CENTERS, LABELS, small=crops, **mixed)
    torch.testing.assert_close(got, (alone + (small[0] + small[1]) / 2) / 2)


def test_alpha_1_is_the_mean_of_single_view_losses() -> None:
    views = random_views(2)
    mixed = views_loss(views, MANY_CENTERS, LABELS, temperature=0.1, alpha=1.0, beta=0.5)
    alone = [coke_loss(*v, MANY_CENTERS, LABELS, temperature=0.1, beta=0.5) for v in views]
    torch.testing.assert_close(mixed, (alone[0] + alone[1]) / 2)


def test_a_sharp_reference_is_the_other_views_nearest_center() -> None:
    views = random_views(2, predictor=False)
    nearest = [
        [(projected @ centers.T).argmax(dim=1) for centers in MANY_CENTERS]
        for projected, _ in views
    ]
    sharp = views_loss(
        views, MANY_CENTERS, LABELS, temperature=0.2, alpha=0.0, reference_temperature=1e-4
    )
    hard = [
        coke_loss(*views[0], MANY_CENTERS, nearest[1], temperature=0.2),
        coke_loss(*views[1], MANY_CENTERS, nearest[0], temperature=0.2),
    ]
    torch.testing.assert_close(sharp, (hard[0] + hard[1]) / 2)


def test_soft_labels_mix_with_references_too() -> None:
    views = random_views(2)
    one_hot = [F.one_hot(y, k).float() for y, k in zip(LABELS, SIZES, strict=True)]
    hard = views_loss(views, MANY_CENTERS, LABELS, temperature=0.1, alpha=0.2)
    soft = views_loss(views, MANY_CENTERS, one_hot, temperature=0.1, alpha=0.2)
    torch.testing.assert_close(hard, soft)


def test_the_references_carry_no_gradient() -> None:
    """d loss / d logits is softmax - target with the target held fixed, for every view; so what a
    small view predicts moves no large one."""
    views = random_views(2, predictor=False)
    crops = random_views(2, predictor=False, seed=100)
    leaves = [x.requires_grad_() for x, _ in [*views, *crops]]
    (centers,), (labels,) = MANY_CENTERS[:1], LABELS[:1]
    views_loss(views, [centers], [labels], temperature=0.3, alpha=0.2, small=crops).backward()
    with torch.no_grad():
        p = [F.softmax(x @ centers.T / 0.3, dim=1) for x in leaves]
        references = [p[1], p[0], (p[0] + p[1]) / 2, (p[0] + p[1]) / 2]
        for x, predicted, other in zip(leaves, p, references, strict=True):
            target = 0.2 * F.one_hot(labels, 3) + 0.8 * other
            # A quarter of the weight each: two halves of two views. Six images.
            torch.testing.assert_close(x.grad, (predicted - target) @ centers / 0.3 / 4 / 6)


def test_references_come_from_the_projector() -> None:
    """With the predictor's loss alone, the projected features are read as reference only, and the
    predicted ones of one view do not enter the loss of the other."""
    views = random_views(2)
    other = [(views[0][0], views[0][1]), (views[1][0], random_features(77, 6))]

    def gradient(of: list[ViewFeatures]) -> Tensor:
        predicted = of[0][1]
        assert predicted is not None
        leaf = predicted.clone().requires_grad_()
        of = [(of[0][0], leaf), of[1]]
        views_loss(of, MANY_CENTERS, LABELS, temperature=0.1, alpha=0.2, beta=1.0).backward()
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(gradient(views), gradient(other), rtol=0, atol=0)
    moved = [views[0], (random_features(78, 6), views[1][1])]
    assert not torch.allclose(gradient(views), gradient(moved))


def test_an_image_without_a_label_teaches_nothing() -> None:
    """The loss is a mean over the labelled images; their number is its weight among ranks."""
    views = random_views(2)
    some = [torch.where(torch.arange(6) % 3 > 0, labels, -1) for labels in LABELS]
    kept = torch.tensor([1, 2, 4, 5])

    def of(rows: Tensor, labels: list[Tensor]) -> Tensor:
        picked = [(a[rows], None if b is None else b[rows]) for a, b in views]
        targets = [y[rows] for y in labels]
        return views_loss(picked, MANY_CENTERS, targets, temperature=0.1, alpha=0.25, beta=0.5)

    torch.testing.assert_close(of(torch.arange(6), some), of(kept, LABELS))
    assert of(torch.tensor([0, 3]), some) == 0
    nobody = torch.arange(0)
    assert of(nobody, LABELS) == 0, "an empty piece of a batch has a loss, and it is 0"
    soft = [F.one_hot(y, k).float() for y, k in zip(LABELS, SIZES, strict=True)]
    assert of(nobody, soft) == 0
