"""Batch norm folded into layers: by hand, and against the networks as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coke.config.model import ModelConfig
from coke.model.coke_model import build_model
from coke.model.folding import fold_batch_norm
from coke.model.resnet import ResNet
from coke.model.sync_batch_norm import synchronize_batch_norm
from tests.support.trained_statistics import trained_statistics


def test_a_layer_by_hand() -> None:
    """s = 3 / sqrt(4): weight 2 s, bias 5 + (1 - 7) s."""
    linear, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)
    values = {"weight": 3.0, "bias": 5.0, "running_mean": 7.0, "running_var": 4.0}
    for name, value in values.items():
        getattr(norm, name).data.fill_(value)
    linear.weight.data.fill_(2.0)
    linear.bias.data.fill_(1.0)
    network = nn.Sequential(linear, norm).eval()
    assert fold_batch_norm(network) == 1
    assert linear.weight.item() == pytest.approx(2 * 1.5)
    assert linear.bias.item() == pytest.approx(5 + (1 - 7) * 1.5)
    assert isinstance(network[1], nn.Identity)


@pytest.mark.parametrize(
    ("options", "norms"),
    [
        ({"depth": 8, "width": 8, "stem": "small", "expand": 24}, 11),
        ({"depth": 10, "width": 8, "stem": "imagenet"}, 12),
        pytest.param({"depth": 50, "width": 8, "stem": "imagenet"}, 53, marks=pytest.mark.slow),
    ],
)
def test_a_resnet_keeps_its_features(options: dict[str, int | str], norms: int) -> None:
    network = trained_statistics(ResNet(**options))  # type: ignore[arg-type]
    folded = copy.deepcopy(network)
    assert fold_batch_norm(folded) == norms
    assert not [m for m in folded.modules() if isinstance(m, _BatchNorm)]
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(images), folded(images)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_the_projector_too_and_norms_that_ranks_share() -> None:
    config = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8)
    model = trained_statistics(build_model(config, 0))
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model([images])[0][0]
        shared = synchronize_batch_norm(copy.deepcopy(model), torch.device("cpu"))
        for network in (model, shared):
            assert fold_batch_norm(network) == 12 + 2
            torch.testing.assert_close(network([images])[0][0], expected, rtol=1e-4, atol=1e-5)


def test_a_norm_that_cannot_be_folded_stays() -> None:
    """Behind no layer, of other channels, or with the statistics of the batch."""
    norms = [
        nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)),
    ]
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for network in norms:
        expected = network.eval()(x)
        assert fold_batch_norm(network) == 0
        assert torch.equal(network(x), expected)


def test_without_scale_and_shift() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3, affine=False))
    network[1].running_mean.fill_(0.5)  # type: ignore[operator]
    network.eval()
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    assert fold_batch_norm(network) == 1
    torch.testing.assert_close(network(x), expected)
