"""One step of several views: which view meets which loss, and what is clustered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.model.loss import coke_loss, views_loss
from coke.tools.training.step import forward_step, scan_step, train_step

HEADS = (3, 5)
TARGETS = [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([4, 3, 2, 1, 0, 4])]


def images(seed: int, size: int = 16, count: int = 6) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mixed(tiny: Config) -> Config:
    """Two views, a predictor, and constants that differ from the defaults."""
    return replace(tiny, model=replace(tiny.model, predictor_hidden=8)).changed(
        data={"views": 2}, loss={"alpha": 0.3, "beta": 0.6, "reference_temperature": 0.07}
    )


def build(config: Config) -> tuple[CoKe, Clustering]:
    clustering = Clustering(n_ids=60, dim=config.model.dim, n_clusters=HEADS)
    clustering.end_epoch()  # the scan is over
    return build_model(config.model, seed=0), clustering


def mixture(config: Config) -> dict[str, Any]:
    names = ("temperature", "reference_temperature", "alpha", "beta")
    return {name: getattr(config.loss, name) for name in names}


def run(config: Config, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    model, clustering = build(config)
    return forward_step(model, views, TARGETS, clustering, config, "fp32")


def test_one_view_is_the_plain_loss(mixed: Config) -> None:
    config = mixed.changed(data={"views": 1})
    features, loss = run(config, [images(0)])
    model, clustering = build(config)
    ((projected, predicted),) = model([images(0)])
    centers = [head.centers for head in clustering.heads]
    torch.testing.assert_close(features, projected.detach(), rtol=0, atol=0)
    expected = coke_loss(projected, predicted, centers, TARGETS, temperature=0.2, beta=0.6)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_two_views_are_clustered_by_their_mean_and_taught_by_each_other(mixed: Config) -> None:
    features, loss = run(mixed, [images(0), images(1)])
    model, clustering = build(mixed)
    first = model([images(0)])[0]
    second = model([images(1)])[0]  # a pass of its own: batch norm sees one view at a time
    centers = [head.centers for head in clustering.heads]
    torch.testing.assert_close(features, (first[0] + second[0]).detach() / 2)
    expected = views_loss([first, second], centers, TARGETS, **mixture(mixed))
    torch.testing.assert_close(loss, expected)
    assert not features.requires_grad and loss.requires_grad


def test_the_mean_feature_is_assigned_by_the_sum_of_both_similarities(mixed: Config) -> None:
    """Eqn. 15: half of the summed similarities, plus the duals."""
    model, clustering = build(mixed)
    views = [images(0), images(1)]
    with torch.no_grad():
        (first, _), (second, _) = model(views)
    head = clustering.heads[0]
    similarities = (first @ head.running_centers.T + second @ head.running_centers.T) / 2
    features = scan_step(build(mixed)[0], views, "fp32")
    torch.testing.assert_close(features @ head.running_centers.T, similarities)


def test_small_views_learn_from_large_ones_and_are_not_clustered(mixed: Config) -> None:
    config = mixed.changed(data={"small_views": 3, "small_view": replace(mixed.data.view, size=8)})
    views = [images(0), images(1), images(2, 8), images(3, 8), images(4, 8)]
    features, loss = run(config, views)
    model, clustering = build(config)
    large = model(views[:2])
    projected, predicted = model([torch.cat(views[2:])])[0]
    small = [(projected[i : i + 6], predicted[i : i + 6]) for i in (0, 6, 12)]
    centers = [head.centers for head in clustering.heads]
    torch.testing.assert_close(features, (large[0][0] + large[1][0]).detach() / 2)
    expected = views_loss(large, centers, TARGETS, small=small, **mixture(config))
    torch.testing.assert_close(loss, expected)

    other_crops = [*views[:2], *(images(10 + i, 8) for i in range(3))]
    torch.testing.assert_close(run(config, other_crops)[0], features, rtol=0, atol=0)
    assert run(config, other_crops)[1] != loss


def test_three_large_views_and_a_small_one(mixed: Config) -> None:
    config = mixed.changed(
        data={"views": 3, "small_views": 1, "small_view": replace(mixed.data.view, size=8)}
    )
    views = [images(0), images(1), images(2), images(3, 8)]
    features, loss = run(config, views)
    model, clustering = build(config)
    large, small = model(views[:3]), model(views[3:])
    centers = [head.centers for head in clustering.heads]
    mean = (large[0][0] + large[1][0] + large[2][0]).detach() / 3
    torch.testing.assert_close(features, mean)
    expected = views_loss(large, centers, TARGETS, small=small, **mixture(config))
    torch.testing.assert_close(loss, expected)


def test_alpha_is_that_of_the_clusterings_epoch(mixed: Config) -> None:
    config = mixed.changed(loss={"alpha_start": 0.9, "alpha_warmup": 2 / 3})
    views = [images(0), images(1)]
    model, clustering = build(config)
    losses = []
    for _ in range(3):
        _, loss = forward_step(copy.deepcopy(model), views, TARGETS, clustering, config, "fp32")
        losses.append(float(loss.detach()))
        clustering.end_epoch()  # nothing was assigned: the centers stay
    constant = [
        float(run(mixed.changed(loss={"alpha": alpha}), views)[1].detach())
        for alpha in (0.9, 0.6, 0.3)
    ]
    assert losses == pytest.approx(constant, rel=1e-6)
    assert len(set(constant)) == 3


def test_current_labels_are_those_of_the_mean_feature(mixed: Config) -> None:
    """Table 2's ablation for two views: what the batch is about to be assigned to."""
    model, _ = build(mixed)
    clustering = Clustering(n_ids=60, dim=8, n_clusters=HEADS, labels_from="current")
    clustering.end_epoch()
    views = [images(0), images(1)]
    features, loss = forward_step(model, views, TARGETS, clustering, mixed, "fp32")
    current = clustering.current_targets(features)
    centers = clustering.loss_centers()
    expected = views_loss(build(mixed)[0](views), centers, current, **mixture(mixed))
    torch.testing.assert_close(loss, expected)
    assert loss != views_loss(build(mixed)[0](views), centers, TARGETS, **mixture(mixed))


@pytest.mark.parametrize("views", [1, 2])
def test_the_scan_gives_unit_features_or_their_mean_and_moves_no_weights(
    mixed: Config, views: int
) -> None:
    model, _ = build(mixed.changed(data={"views": views}))
    before = copy.deepcopy(model.state_dict())
    given = [images(v) for v in range(views)]
    features = scan_step(model, given, "fp32")
    expected = [projected for projected, _ in build_model(mixed.model, seed=0)(given)]
    torch.testing.assert_close(features, torch.stack(expected).mean(dim=0).detach())
    assert not features.requires_grad
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    mean = "backbone.bn1.running_mean"
    assert not torch.equal(model.state_dict()[mean], before[mean])


def test_a_step_moves_every_weight_along_the_losss_gradient(mixed: Config) -> None:
    config = mixed.changed(data={"small_views": 2, "small_view": replace(mixed.data.view, size=8)})
    views = [images(0), images(1), images(2, 8), images(3, 8)]
    model, clustering = build(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_step(model, optimizer, views, TARGETS, clustering, config, "fp32")
    reference, clustering = build(config)
    forward_step(reference, views, TARGETS, clustering, config, "fp32")[1].backward()
    for (name, moved), twin in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert twin.grad is not None, name
        torch.testing.assert_close(moved, before[name] - 0.1 * twin.grad, msg=name)
