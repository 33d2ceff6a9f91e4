"""The preset ``auto``: network, views, loss and optimiser, which the rest is chosen on top of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from coke.config.clustering import NO_SECOND_STAGE
from coke.config.config import Config
from coke.config.facts import DataFacts, DeviceFacts
from coke.config.model import VIT
from coke.config.presets import presets
from coke.config.view_recipe import IMAGENET_SINGLE_VIEW, IMAGENET_TWO_VIEW, ViewRecipe
from coke.config.wishes import AUTO, Wishes

#: From so many images on, of so many pixels a side, and with a GPU: the paper's recipe.
PAPER_IMAGES, PAPER_SIDE = 500_000, 160
_RESNET50_IMAGES = 100_000
_SMALL_SIDE = 64  # pixels; larger views go through ImageNet's stem
_SMALLEST_START = 16  # pixels of a view that grows


@dataclass(frozen=True, kw_only=True)
class Base:
    """Network, views, loss and optimiser; ``paper`` for a preset of the paper."""

    config: Config
    network: str
    paper: bool = False


def base_of(data: DataFacts, device: DeviceFacts, wishes: Wishes) -> Base:
    """The settings on top of which batch, epochs, rate and heads are chosen."""
    views = wishes.given("data.views") or 2
    if device.gpu and data.images >= PAPER_IMAGES and data.side >= PAPER_SIDE:
        config = presets["imagenet-1view" if views == 1 else "imagenet-2view"]
        if data.gray:
            config = _with_views(config, _without_colour)
        if size := wishes.given("data.view.size"):
            config = _with_views(config, lambda recipe: replace(recipe, size=size))
        why = f"as the paper has it, for {PAPER_IMAGES:,} images or more and a GPU"
        return Base(config=config, network=why, paper=True)
    config = _small_run(data, device, wishes, views)
    if not device.gpu:
        small = config.data.view.size <= _SMALL_SIDE
        config = config.changed(model={"depth": 8 if small else 10, "width": 16 if small else 32})
        why = "small, as there is no GPU"
    elif data.images >= _RESNET50_IMAGES and data.side >= PAPER_SIDE:
        paper = presets["imagenet-2view"]
        config = config.changed(loss={"temperature": 0.1}, data={"batch_size": 1024})
        model = replace(paper.model, projector_layers=2, predictor_hidden=0)
        config = replace(config, optimizer=paper.optimizer, model=model)
        why = f"for {_RESNET50_IMAGES:,} large images or more and a GPU"
    else:
        model_18 = {"depth": 18, "width": 64, "expand": 0, "projector_hidden": 2048}
        config = config.changed(model=model_18, data={"batch_size": 256})
        why = f"for {data.images:,} images of {data.side} pixels and a GPU"
    if _is_vit(wishes):
        config = config.changed(optimizer={"name": "adamw", "weight_decay": 0.1})
    return Base(config=config, network=why)


def _small_run(data: DataFacts, device: DeviceFacts, wishes: Wishes, views: int) -> Config:
    """``cifar10-2view`` for images of another size or colour."""
    multiple = int(wishes.given("model.patch") or 16) if _is_vit(wishes) else 4
    size = wishes.given("data.view.size") or _size(data.side, device.gpu, multiple)
    start = 0 if device.gpu else max(_SMALLEST_START, _rounded(size * 2 / 3, multiple))
    evaluation = 0 if device.gpu else _rounded(size * 4 / 3, multiple)
    first, second = _recipes(data, views, device.gpu)
    return presets["cifar10-2view"].changed(
        preset=AUTO,
        data={
            "views": views,
            "start_size": start if start < size else 0,
            "view": replace(first, size=size, evaluation_size=evaluation),
            "second_view": replace(second, size=size, evaluation_size=evaluation),
        },
        model={"stem": "small" if size <= _SMALL_SIDE else "imagenet"},
        clustering={
            "min_ratio": 0.9,
            "max_ratio": 0.0,
            "dual_rule": "auto",
            "first_stage_epochs": NO_SECOND_STAGE,
        },
    )


def _is_vit(wishes: Wishes) -> bool:
    return bool(wishes.given("model.backbone") == VIT)


def _with_views(config: Config, change: Callable[[ViewRecipe], ViewRecipe]) -> Config:
    view, second = change(config.data.view), change(config.data.second_view)
    return config.changed(data={"view": view, "second_view": second})


def _recipes(data: DataFacts, views: int, gpu: bool) -> tuple[ViewRecipe, ViewRecipe]:
    """How views of small images, or of large ones, are drawn; sizes come later."""
    if data.side <= _SMALL_SIDE:
        recipe = presets["demo" if data.gray else "cifar10"].data.view
        return recipe, recipe
    first, second = IMAGENET_TWO_VIEW if views > 1 else (IMAGENET_SINGLE_VIEW,) * 2
    if not gpu:  # small networks learn little from crops of a twelfth of the image
        first, second = replace(first, scale=(0.2, 1.0)), replace(second, scale=(0.2, 1.0))
    return (_without_colour(first), _without_colour(second)) if data.gray else (first, second)


def _without_colour(recipe: ViewRecipe) -> ViewRecipe:
    """For gray images: no change of saturation or hue; the mean over the channels."""
    mean, std = sum(recipe.mean) / 3, sum(recipe.std) / 3
    return replace(
        recipe, jitter=(*recipe.jitter[:2], 0.0, 0.0), gray_p=0.0, mean=(mean,) * 3, std=(std,) * 3
    )


def _size(side: int, gpu: bool, multiple: int) -> int:
    """Side of a view in pixels. Three quarters of the image's without a GPU, at most 96: objects
    in a random crop look as large as in the whole image."""
    largest = min(side, 224) if gpu else min(0.75 * side, 96)
    return max(8, _rounded(largest, multiple))


def _rounded(pixels: float, multiple: int) -> int:
    return max(multiple, int(pixels / multiple) * multiple)
