"""Backbone, projector and predictor together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coke.config.model import ModelConfig
from coke.model.coke_model import build_model, unit

TINY = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=6)
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_unit_by_hand() -> None:
    got = unit(torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.bfloat16))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    assert unit(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]  # not nan


@pytest.mark.parametrize("predictor_hidden", [0, 5])
def test_features_have_unit_norm_in_float32(predictor_hidden: int) -> None:
    model = build_model(replace(TINY, predictor_hidden=predictor_hidden), seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ((projected, predicted),) = model([IMAGES])
    outputs = [projected] if predictor_hidden == 0 else [projected, predicted]
    assert (predicted is None) == (predictor_hidden == 0)
    for features in outputs:
        assert features.shape == (4, 6) and features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


def test_the_predictor_sees_the_projection_before_it_is_normalised() -> None:
    model = build_model(replace(TINY, predictor_hidden=5), seed=0).eval()
    assert model.predictor is not None
    with torch.no_grad():
        ((_, predicted),) = model([IMAGES])
        raw = model.projector(model.backbone(IMAGES))
        torch.testing.assert_close(predicted, F.normalize(model.predictor(raw), dim=1))


@pytest.mark.parametrize(
    ("layers", "last_norm", "expected"),
    [
        (1, True, ["Linear", "BatchNorm1d"]),
        (1, False, ["Linear"]),
        (2, True, ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]),
        (
            3,
            False,
            ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"],
        ),
    ],
)
def test_projector_layers(layers: int, last_norm: bool, expected: list[str]) -> None:
    config = replace(TINY, projector_layers=layers, projector_last_norm=last_norm)
    projector = build_model(config, seed=0).projector
    assert [type(layer).__name__ for layer in projector] == expected
    linear = [layer for layer in projector if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    assert widths == [64, *[16] * (layers - 1), 6]
    # A bias before batch norm would have no effect.
    assert [layer.bias is None for layer in linear] == [True] * (layers - 1) + [last_norm]


def test_predictor_layers() -> None:
    predictor = build_model(replace(TINY, predictor_hidden=5), seed=0).predictor
    assert predictor is not None
    shapes = {name: list(p.shape) for name, p in predictor.named_parameters()}
    assert shapes == {
        "0.weight": [5, 6],  # no bias before batch norm
        "1.weight": [5],
        "1.bias": [5],
        "3.weight": [6, 5],
        "3.bias": [6],
    }


def test_same_seed_same_weights_whatever_ran_before() -> None:
    torch.manual_seed(0)
    first = build_model(TINY, seed=3).state_dict()
    torch.randn(17)
    before = torch.random.get_rng_state()
    second = build_model(TINY, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)  # the global generator is left alone
    other = build_model(TINY, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_wrong_projector_is_named() -> None:
    with pytest.raises(ValueError, match="projector_layers is 0"):
        build_model(replace(TINY, projector_layers=0), seed=0)
