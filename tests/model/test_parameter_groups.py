"""Decay exclusions, and layer-wise learning rates by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coke.config.model import ModelConfig
from coke.config.optimizer import OPTIMIZERS, OptimizerConfig
from coke.model.coke_model import CoKe, build_model
from coke.model.optimizer import build_optimizer, set_learning_rate
from coke.model.parameter_groups import LR_SHARE, layer_of, parameter_groups

pytestmark = pytest.mark.usefixtures("small_vit")


def vit(*, freeze_patches: bool = False) -> CoKe:
    config = ModelConfig(
        backbone="vit",
        size="tiny",
        patch=8,
        image_size=16,
        projector_hidden=16,
        dim=6,
        predictor_hidden=4,
        freeze_patches=freeze_patches,
    )
    return build_model(config, seed=0)


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    by_id = {id(p): name for name, p in model.named_parameters()}
    return {by_id[id(p)] for p in parameters}


def test_biases_norms_token_and_positions_are_not_decayed() -> None:
    model = vit()
    decayed, plain = parameter_groups(model, weight_decay=0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert names(model, decayed["params"]) == {
        "backbone.patch_embed.proj.weight",
        *(
            f"backbone.blocks.{i}.{layer}.weight"
            for i in (0, 1)
            for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
        "projector.0.weight",
        "projector.3.weight",
        "predictor.0.weight",
        "predictor.3.weight",
    }
    rest = names(model, plain["params"])
    assert {"backbone.cls_token", "backbone.pos_embed", "backbone.norm.weight"} < rest
    assert len(decayed["params"]) + len(plain["params"]) == len([*model.parameters()])


def test_a_frozen_projection_is_in_no_group() -> None:
    model = vit(freeze_patches=True)
    found = [p for group in parameter_groups(model, weight_decay=0.1) for p in group["params"]]
    assert len(found) == len([*model.parameters()]) - 2


def test_learning_rates_of_layers_by_hand() -> None:
    """Two blocks, decay a half: embedding 1/8, blocks 1/4 and 1/2, all that follows 1."""
    model = vit()
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    share = {n: g[LR_SHARE] for g in groups for n in names(model, g["params"])}
    assert len(share) == len([*model.parameters()])
    assert {
        share[f"backbone.{n}"] for n in ("cls_token", "pos_embed", "patch_embed.proj.bias")
    } == {0.125}
    assert {s for n, s in share.items() if ".blocks.0." in n} == {0.25}
    assert {s for n, s in share.items() if ".blocks.1." in n} == {0.5}
    rest = {
        s for n, s in share.items() if n.startswith(("backbone.norm", "projector", "predictor"))
    }
    assert rest == {1.0}
    assert all(g["weight_decay"] == 0.1 for g in groups if g["params"][0].ndim == 2)


def test_layers_of_timms_names_with_and_without_the_model() -> None:
    for prefix in ("", "backbone."):
        found = [
            layer_of(prefix + name, 12)
            for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.bias")
        ]
        assert found == [0, 0, 1]
        assert layer_of(f"{prefix}blocks.11.mlp.fc2.weight", 12) == 12
        assert layer_of(f"{prefix}fc_norm.weight", 12) == 13
    assert layer_of("projector.blocks.0.weight", 12) == 13


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_reaches_every_group_with_its_share(name: str) -> None:
    optimizer = build_optimizer(vit(), OptimizerConfig(name=name, layer_decay=0.5))
    set_learning_rate(optimizer, 0.8)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.1, 0.2, 0.4, 0.8]
    optimizer.load_state_dict(optimizer.state_dict())
    set_learning_rate(optimizer, 1.6)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.2, 0.4, 0.8, 1.6]


def test_a_layers_step_is_its_share_of_the_rate() -> None:
    """AdamW's first step is the learning rate in every weight, whatever the gradient."""
    model = vit()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.0, layer_decay=0.5)
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, config.lr)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.3)
    optimizer.step()
    for name, step in (("cls_token", 0.00125), ("blocks.1.attn.qkv.weight", 0.005)):
        moved = before[f"backbone.{name}"] - model.backbone.get_parameter(name).detach()
        torch.testing.assert_close(moved, torch.full_like(moved, step), atol=1e-6, rtol=1e-3)


def test_a_network_without_blocks_has_no_layers() -> None:
    resnet = build_model(ModelConfig(depth=10, width=8, projector_hidden=16), seed=0)
    with pytest.raises(ValueError, match=r"layer_decay is 0.75, but the backbone has no blocks"):
        build_optimizer(resnet, OptimizerConfig(layer_decay=0.75))
