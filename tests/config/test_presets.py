"""Presets: the paper's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.config.config import Config
from coke.config.overrides import load_toml, to_toml, with_settings
from coke.config.presets import preset_named, presets
from coke.config.view_recipe import IMAGENET_MULTICROP, IMAGENET_TWO_VIEW
from coke.model.optimizer import scaled_to_batch


@pytest.mark.parametrize("name", list(presets))
def test_a_preset_survives_toml(name: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(to_toml(presets[name]), encoding="utf-8")
    assert with_settings(Config(), load_toml(tmp_path / "c.toml")) == presets[name]
    assert presets[name].preset == name


def test_the_imagenet_preset_is_the_papers() -> None:
    config = preset_named("imagenet-1view")
    assert (config.data.batch_size, config.loss.temperature, config.data.views) == (1024, 0.1, 1)
    assert (config.optimizer.name, config.optimizer.lr) == ("lars", 1.6)
    assert (config.optimizer.weight_decay, config.optimizer.warmup_epochs) == (1e-6, 10)
    assert (config.clustering.dual_rule, config.clustering.dual_lr) == ("paper", 20.0)
    assert config.clustering.min_ratio == 0.4
    assert config.clustering.n_clusters == (3000, 4000, 5000)
    assert (config.model.depth, config.model.width, config.model.dim) == (50, 64, 128)


#: What the paper and its release say of each preset: epochs, stage, T, layers, predictor, beta.
@pytest.mark.parametrize(
    ("name", "epochs", "first_stage", "temperature", "layers", "predictor", "beta"),
    [
        (
            "imagenet-1view",
            800,
            641,
            0.1,
            2,
            0,
            1.0,
        ),  # Table 5; 160/200 of the epochs, and the scan
        ("imagenet-1view-long", 1000, 801, 0.1, 3, 2048, 1.0),  # Table 7
        ("imagenet-2view", 1000, 100_000, 0.05, 3, 2048, 0.5),
        ("imagenet-multicrop", 800, 100_000, 0.05, 3, 2048, 0.5),  # the release's third recipe
    ],
)
def test_the_imagenet_presets_are_the_papers(
    name: str,
    epochs: int,
    first_stage: int,
    temperature: float,
    layers: int,
    predictor: int,
    beta: float,
) -> None:
    config = preset_named(name)
    assert (config.optimizer.epochs, config.clustering.first_stage_epochs) == (epochs, first_stage)
    assert (config.loss.temperature, config.loss.beta, config.data.batch_size) == (
        temperature,
        beta,
        1024,
    )
    assert (config.model.projector_layers, config.model.projector_hidden) == (layers, 2048)
    assert (config.model.predictor_hidden, config.model.dim) == (predictor, 128)
    assert config.model.projector_last_norm
    assert config.clustering.n_clusters == (3000, 4000, 5000)
    assert (config.clustering.dual_rule, config.clustering.dual_lr) == ("paper", 20.0)
    assert (config.clustering.label_size, config.clustering.label_temperature) == (5, 0.5)
    assert (config.optimizer.name, config.optimizer.lr) == ("lars", 1.6)


def test_the_multi_view_presets_have_the_papers_views_and_constant_alpha() -> None:
    two, multi = preset_named("imagenet-2view"), preset_named("imagenet-multicrop")
    assert two.recipes_at(1) == two.recipes_at(0) == IMAGENET_TWO_VIEW
    assert multi.recipes_at(1) == IMAGENET_MULTICROP
    assert multi.recipes_at(0) == IMAGENET_TWO_VIEW, "the scan clusters large views only"
    for config in (two, multi):
        assert [
            config.loss.alpha_at(epoch, config.optimizer.epochs) for epoch in (0, 1, 2, 500)
        ] == [0.2] * 4
        assert config.loss.reference_temperature == 0


def test_the_vit_preset_has_moco_v3s_optimizer_and_the_papers_views() -> None:
    """CONFIG.md of MoCo v3: -a vit_small -b 1024 --lr=1.5e-4 (x batch / 256) --weight-decay=.1
    --epochs=300 --warmup-epochs=40 --stop-grad-conv1."""
    config, two = preset_named("vit-small-2view"), preset_named("imagenet-2view")
    assert (config.data, config.loss, config.clustering) == (two.data, two.loss, two.clustering)
    optimizer, batch = config.optimizer, config.data.batch_size
    assert (optimizer.name, optimizer.betas, batch) == ("adamw", (0.9, 0.999), 1024)
    assert scaled_to_batch(optimizer, 1024).lr == pytest.approx(1.5e-4 * 1024 / 256)
    assert scaled_to_batch(optimizer, 4096).lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert (optimizer.weight_decay, optimizer.epochs, optimizer.warmup_epochs) == (0.1, 300, 40)
    assert (config.model.network, config.model.freeze_patches) == ("ViT-small/16", True)
    assert config.model.drop_path == 0.1  # DINO's


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'imagenet'; choose one of demo, cifar10, cifar10-2view"):
        preset_named("imagenet")
