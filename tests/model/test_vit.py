"""Vision transformers: timm's names, shapes and features; positions of another grid by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coke.config.model import VIT_PATCHES, VIT_SIZES, ModelConfig
from coke.model.activation_checkpointing import checkpoint_activations
from coke.model.backbone import feature_dim, fixed_image_size
from coke.model.coke_model import build_model, check_view_sizes
from coke.model.precision import autocast
from coke.model.vit import SIZES, VisionTransformer, interpolated
from tests.support.small_vit import BLOCKS, WIDTH

#: Shapes by name of timm's networks, and features of timm's ViT-tiny/16 with the weights of
#: :func:`numbered` for the picture of :func:`picture`, by pooling and side.
GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "timm_vit.json").read_text(encoding="utf-8")
)
CONFIG = ModelConfig(
    backbone="vit", size="tiny", patch=8, image_size=16, projector_hidden=16, dim=6
)


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights between -0.1 and 0.1, around 1 in norms, that are the same on every machine."""
    found = {}
    for number, (name, value) in enumerate(state.items()):
        counted = (torch.arange(value.numel()) * 7919 + 31 * number) % 1009
        centre = 1.0 if re.search(r"norm\d?\.weight", name) else 0.0
        found[name] = (counted.float() / 1009 - 0.5).view(value.shape) * 0.2 + centre
    return found


def picture(height: int, width: int) -> Tensor:
    values = torch.arange(3 * height * width) * 37 % 101
    return (values.float() / 50 - 1).view(1, 3, height, width)


@pytest.mark.parametrize("name", GOLDEN["shapes"])
def test_names_and_shapes_are_timms(name: str) -> None:
    found = re.fullmatch(r"vit_(\w+)_patch(\d+)_(\d+)", name)
    assert found is not None
    with torch.device("meta"):
        net = VisionTransformer(
            size=found[1], patch=int(found[2]), image_size=int(found[3]), drop_path=0.1
        )
    shapes = [(key, list(value.shape)) for key, value in net.state_dict().items()]
    assert shapes == list(GOLDEN["shapes"][name].items())
    assert net.dim == SIZES[found[1]][0]


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN["features"])
def test_features_are_timms_for_images_of_any_grid(case: str) -> None:
    pool, side = case.split()
    height, width = map(int, side.split("x"))
    net = VisionTransformer(size="tiny", patch=16, image_size=32, pool=pool).eval()
    net.load_state_dict(numbered(net.state_dict()))
    with torch.no_grad():
        features = net(picture(height, width))[0, :24]
    torch.testing.assert_close(
        features, torch.tensor(GOLDEN["features"][case]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "patch", "side", "pool"),
    [("tiny", 4, 32, "mean"), ("small", 8, 64, "class"), ("base", 14, 56, "class")],
)
def test_timm_itself_gives_the_same_features(size: str, patch: int, side: int, pool: str) -> None:
    try:
        from timm.models.vision_transformer import VisionTransformer as TimmsTransformer
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that fits torch
        pytest.skip(f"needs coke[timm]: {error}")
    ours = VisionTransformer(size=size, patch=patch, image_size=side, pool=pool).eval()
    width, depth, heads = SIZES[size]
    theirs = TimmsTransformer(
        img_size=side,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        dynamic_img_size=True,
        global_pool="token" if pool == "class" else "avg",
        fc_norm=False,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for rows, columns in ((side, side), (side + patch, side), (2 * patch, side + 3 * patch)):
        with torch.no_grad():
            torch.testing.assert_close(
                ours(picture(rows, columns)), theirs(picture(rows, columns)), atol=1e-4, rtol=1e-4
            )


def grid(rows: list[list[float]]) -> Tensor:
    """Position embeddings of width 1: those of a grid, after the class token's 9."""
    return torch.cat([torch.tensor([9.0]), torch.tensor(rows).flatten()]).view(1, -1, 1)


def test_positions_of_the_same_grid_are_the_parameters_themselves() -> None:
    positions = grid([[1, 2], [3, 4]])
    assert interpolated(positions, 2, 2) is positions


def test_positions_of_another_grid_by_hand() -> None:
    """Keys's cubic kernel with a = -0.5, stretched by the scale: antialiased.

    From 2 to 1, the output's centre lies between both inputs: half of each. From 4 to 2, the inputs
    lie 0.25, 0.25, 0.75 and 1.25 kernel units from the first output's centre, where the kernel is
    111/128, 111/128, 29/128 and -9/128. Weights are scaled to a sum of 1.
    """
    assert interpolated(grid([[1, 2], [3, 6]]), 1, 1).flatten().tolist() == [9.0, 3.0]
    near, middle, far = 111 / 128, 29 / 128, -9 / 128
    sums = near + near + middle + far
    first = [near / sums, near / sums, middle / sums, far / sums]
    weights = torch.tensor([first, first[::-1]])
    values = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 12, 14], [0, 1, 0, 1]])
    expected = weights @ values @ weights.T
    found = interpolated(grid(values.tolist()), 2, 2)
    torch.testing.assert_close(found[0, 1:, 0].view(2, 2), expected)
    assert found[0, 0, 0] == 9.0


def test_a_grid_that_is_the_same_everywhere_stays_so_and_the_gradient_is_kept() -> None:
    positions = grid([[0.5] * 3] * 3).requires_grad_()
    larger = interpolated(positions, 5, 2)
    assert larger.shape == (1, 11, 1)
    torch.testing.assert_close(larger[0, 1:], torch.full((10, 1), 0.5))
    larger[0, 1:].sum().backward()
    assert positions.grad is not None
    torch.testing.assert_close(positions.grad[0, 1:].sum(), torch.tensor(10.0))
    assert positions.grad[0, 0] == 0.0


def test_two_sizes_of_views_go_through_one_model(small_vit: None) -> None:
    model = build_model(CONFIG, seed=0)
    assert (feature_dim(model.backbone), fixed_image_size(model.backbone)) == (WIDTH, 0)
    views = [torch.randn(4, 3, 16, 16), torch.randn(8, 3, 24, 24)]
    (large, _), (small, _) = model(views)
    assert large.shape == (4, 6) and small.shape == (8, 6)
    (large.sum() + small.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weights_follow_the_seed(small_vit: None) -> None:
    first, same, other = (build_model(CONFIG, seed=s).backbone.state_dict() for s in (1, 1, 2))
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.1.attn.qkv.weight"):
        assert torch.equal(first[name], same[name])
        assert not torch.equal(first[name], other[name])


def test_stochastic_depth_leaves_out_more_in_later_blocks_and_keeps_the_mean() -> None:
    net = VisionTransformer(size="tiny", patch=8, image_size=16, drop_path=0.4)
    torch.manual_seed(0)
    shares = net._shares(4000, torch.device("cpu"))
    assert shares is not None and shares.shape == (12, 2, 4000)
    left_out = (shares == 0).float().mean(dim=2)
    torch.testing.assert_close(
        left_out, torch.linspace(0, 0.4, 12)[:, None].expand(12, 2), atol=0.03, rtol=0
    )
    torch.testing.assert_close(shares.mean(dim=2), torch.ones(12, 2), atol=0.05, rtol=0)
    assert net.eval()._shares(4, torch.device("cpu")) is None


def test_a_block_that_is_left_out_is_its_shortcut(small_vit: None) -> None:
    block = VisionTransformer(size="tiny", patch=8, image_size=16).blocks[0]
    tokens = torch.randn(2, 5, WIDTH)
    share = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    with torch.no_grad():
        found, whole = block(tokens, share), block(tokens)
    assert torch.equal(found[0], tokens[0])
    torch.testing.assert_close(found[1], whole[1])


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_activations_computed_again_change_nothing(small_vit: None, drop_path: float) -> None:
    gradients = []
    for again in (False, True):
        model = build_model(replace(CONFIG, drop_path=drop_path), seed=0)
        if again:
            assert checkpoint_activations(model) == BLOCKS
        torch.manual_seed(1)
        ((projected, _),) = model([picture(16, 16).expand(4, -1, -1, -1) * torch.rand(4, 1, 1, 1)])
        projected[:, 0].sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_frozen_patches_stay_and_the_rest_learns(small_vit: None) -> None:
    model = build_model(replace(CONFIG, freeze_patches=True), seed=0)
    ((projected, _),) = model([torch.randn(4, 3, 16, 16)])
    projected[:, 0].sum().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None}
    assert still == {"backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"}


def test_a_rank_without_images_left_computes_nothing_and_has_gradients(small_vit: None) -> None:
    net = VisionTransformer(size="tiny", patch=8, image_size=16, drop_path=0.1)
    features = net(torch.zeros(0, 3, 24, 24))
    features.sum().backward()
    assert features.shape == (0, WIDTH)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_half_precision_gives_about_the_same_features(small_vit: None) -> None:
    """Positions are interpolated and added in float32, whatever autocast does around them."""
    model = build_model(CONFIG, seed=0).eval()
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model.backbone(images)
        with autocast("bf16", torch.device("cpu")):
            half = model.backbone(images)
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "model size is 'huge'; of a ViT, choose one of tiny, small, base"),
        ({"patch": 32}, "model patch is 32; of a ViT, choose one of 4, 8, 14, 16"),
        ({"pool": "max"}, "model pool is 'max'; of a ViT, choose one of class, mean"),
        ({"drop_path": 1.0}, "model drop_path is 1.0; give a probability, 0 <= p < 1"),
        (
            {"image_size": 100},
            "model image_size is 100, and model patch 16: give a multiple of the patch, such as 96",
        ),
        ({"image_size": 8}, "model image_size is 8, and model patch 16: give a multiple"),
    ],
)
def test_options_that_do_not_exist_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        VisionTransformer(**options)
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig(backbone="vit", **options)


def test_views_that_do_not_fit_the_patch_are_named(small_vit: None) -> None:
    model = build_model(CONFIG, seed=0)
    check_view_sizes(model, {"data.view.size": 24, "data.small_view.size": 8})
    message = "data.view.size is 20, but ViT-tiny/8 takes sides that are multiples of its patch"
    with pytest.raises(ValueError, match=f"{message} of 8 pixels: set data.view.size to 16 or 24"):
        check_view_sizes(model, {"data.view.size": 20})
    with pytest.raises(ValueError, match="images are 16 x 20 pixels; .* multiples of its patch"):
        model.backbone(torch.zeros(1, 3, 16, 20))


def test_every_size_and_patch_of_the_settings_exists() -> None:
    assert tuple(SIZES) == VIT_SIZES
    with torch.device("meta"):
        for patch in VIT_PATCHES:
            net = VisionTransformer(size="tiny", patch=patch, image_size=2 * patch)
            assert net.pos_embed.shape == (1, 5, 192)
