"""Finding numbers that are not finite, and undoing what a forward pass did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coke.model.finite import (
    NonFiniteStep,
    Statistics,
    check_features,
    check_gradients,
    check_loss,
)

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("loss", "gradient", "message"),
    [
        (1.0, 2.0, None),
        (1.0, 1e15, None),
        (NAN, 2.0, "loss is nan"),
        (-INF, 2.0, "loss is -inf"),
        (1.0, NAN, "gradients are not finite"),
        (1.0, INF, "gradients are not finite"),
        (1.0, -INF, "gradients are not finite"),
    ],
)
def test_one_bad_number_is_enough(loss: float, gradient: float, message: str | None) -> None:
    gradients = [torch.zeros(2, 3), torch.ones(4)]
    gradients[0][1, 2] = gradient
    if message is None:
        check_gradients(torch.tensor(loss), gradients)
        return
    with pytest.raises(NonFiniteStep, match=message):
        check_gradients(torch.tensor(loss), gradients)


def test_a_loss_without_gradients() -> None:
    check_gradients(torch.tensor(1.0), [])
    check_loss(torch.tensor(1.0))
    for check in (check_loss, lambda loss: check_gradients(loss, [])):
        with pytest.raises(NonFiniteStep, match="loss is inf"):
            check(torch.tensor(INF))


def test_features() -> None:
    features = torch.ones(4, 3)
    check_features(features)
    check_features(features[:0])
    features[2, 1] = NAN
    with pytest.raises(NonFiniteStep, match="features are not finite"):
        check_features(features)


def test_statistics_go_back_to_the_last_that_were_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    statistics = Statistics(model)
    model(torch.randn(5, 3))
    statistics.keep()
    kept = {name: b.clone() for name, b in model.named_buffers()}
    model(torch.full((5, 3), NAN))
    assert torch.isnan(model.state_dict()["1.running_mean"]).all()
    statistics.restore()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, kept[name]), name
    assert int(kept["1.num_batches_tracked"]) == 1


def test_a_model_without_buffers() -> None:
    statistics = Statistics(nn.Linear(2, 2))
    statistics.keep()
    statistics.restore()
