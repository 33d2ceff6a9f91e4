"""Finding numbers that are not finite, and undoing what a forward pass did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coke.model.finite import Statistics, finite_features, finite_gradients

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("loss", "gradient", "finite"),
    [
        (1.0, 2.0, True),
        (1.0, 1e15, True),
        (NAN, 2.0, False),
        (-INF, 2.0, False),
        (1.0, NAN, False),
        (1.0, INF, False),
        (1.0, -INF, False),
    ],
)
def test_one_bad_number_is_enough(loss: float, gradient: float, finite: bool) -> None:
    gradients = [torch.zeros(2, 3), torch.ones(4)]
    gradients[0][1, 2] = gradient
    assert finite_gradients(torch.tensor(loss), gradients).item() is finite


def test_a_loss_without_gradients() -> None:
    assert finite_gradients(torch.tensor(1.0), []).item() is True
    assert finite_gradients(torch.tensor(INF), []).item() is False


def test_features() -> None:
    features = torch.ones(4, 3)
    assert finite_features(features).item() is True
    assert finite_features(features[:0]).item() is True
    features[2, 1] = NAN
    assert finite_features(features).item() is False


def test_statistics_go_back_to_the_last_that_were_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    statistics = Statistics(model)
    model(torch.randn(5, 3))
    statistics.keep()
    kept = {name: b.clone() for name, b in model.named_buffers()}
    model(torch.full((5, 3), NAN))
    assert torch.isnan(model.state_dict()["1.running_mean"]).all()
    statistics.restore_unless(torch.tensor(False))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, kept[name]), name
    assert int(kept["1.num_batches_tracked"]) == 1


def test_statistics_of_a_good_step_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)).train()
    statistics = Statistics(model)
    statistics.keep()
    model(torch.randn(5, 3))
    moved = {name: b.clone() for name, b in model.named_buffers()}
    statistics.restore_unless(torch.tensor(True))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, moved[name]), name


def test_a_model_without_buffers() -> None:
    statistics = Statistics(nn.Linear(2, 2))
    statistics.keep()
    statistics.restore_unless(torch.tensor(False))
