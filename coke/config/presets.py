"""The presets: named settings of training runs, the paper's among them."""

from __future__ import annotations

from dataclasses import replace

from coke.config.clustering import ClusteringConfig
from coke.config.config import Config
from coke.config.view_recipe import (
    IMAGENET_MULTICROP,
    IMAGENET_SINGLE_VIEW,
    IMAGENET_TWO_VIEW,
    ViewRecipe,
)
from coke.model.coke_model import ModelConfig
from coke.model.optimizer import OptimizerConfig

_CIFAR_VIEW = ViewRecipe(
    size=24,
    evaluation_size=32,
    scale=(0.2, 1.0),
    center_fraction=1.0,
    jitter=(0.4, 0.4, 0.4, 0.1),
    blur_p=0.0,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
)

_SMALL = Config(
    preset="cifar10",
    epochs=100,
    batch_size=128,
    start_size=16,
    temperature=0.2,
    view=_CIFAR_VIEW,
    second_view=_CIFAR_VIEW,
    model=ModelConfig(depth=8, width=16, stem="small", expand=512, projector_hidden=512),
    optimizer=OptimizerConfig(name="sgd", lr=0.2, weight_decay=5e-4, warmup_epochs=1.0),
    # At a ratio of 0.4 a few clusters grow large: docs/quality.md has what that costs.
    clustering=ClusteringConfig(n_clusters=(500, 1000), min_ratio=1.0),
)

_DEMO_VIEW = replace(
    _CIFAR_VIEW,
    size=20,
    evaluation_size=28,
    scale=(0.3, 1.0),
    jitter=(0.4, 0.4, 0.0, 0.0),  # the images are gray
    gray_p=0.0,
    mean=(0.286,) * 3,
    std=(0.353,) * 3,
)

# The paper's, in the settings of its release where it says more: docs/recipes.md has them in a
# table. Stages count the initialisation scan, so 641 is the scan and 640 epochs.
_IMAGENET_HEADS = ClusteringConfig(n_clusters=(3000, 4000, 5000), dual_rule="paper")
_IMAGENET_MLPS = ModelConfig(projector_layers=3, predictor_hidden=2048)
_IMAGENET_TWO_VIEW = Config(
    preset="imagenet-2view",
    views=2,
    epochs=1000,
    temperature=0.05,
    alpha=0.2,
    beta=0.5,
    view=IMAGENET_TWO_VIEW[0],
    second_view=IMAGENET_TWO_VIEW[1],
    model=_IMAGENET_MLPS,
    clustering=_IMAGENET_HEADS,
)

presets: dict[str, Config] = {
    "demo": replace(
        _SMALL,
        preset="demo",
        epochs=7,
        start_size=0,
        view=_DEMO_VIEW,
        second_view=_DEMO_VIEW,
    ),
    "cifar10": _SMALL,
    "cifar10-2view": replace(_SMALL, preset="cifar10-2view", views=2, alpha_warmup=1.0),
    "imagenet-1view": Config(
        preset="imagenet-1view",
        epochs=800,
        view=IMAGENET_SINGLE_VIEW,
        clustering=replace(_IMAGENET_HEADS, first_stage_epochs=641),
    ),
    "imagenet-1view-long": Config(
        preset="imagenet-1view-long",
        epochs=1000,
        view=IMAGENET_SINGLE_VIEW,
        model=_IMAGENET_MLPS,
        clustering=replace(_IMAGENET_HEADS, first_stage_epochs=801),
    ),
    "imagenet-2view": _IMAGENET_TWO_VIEW,
    "imagenet-multicrop": replace(
        _IMAGENET_TWO_VIEW,
        preset="imagenet-multicrop",
        epochs=800,
        small_views=6,
        small_view=IMAGENET_MULTICROP[-1],
    ),
}


def preset_named(name: str) -> Config:
    """A preset by name.

    Raises:
        ValueError: unknown name; the message lists the valid ones.
    """
    if name == "custom":
        return Config()
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(presets)}")
    return presets[name]
