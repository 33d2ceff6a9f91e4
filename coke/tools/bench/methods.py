"""Table 6 on this machine: steps of CoKe, MoCo-v2 and SwAV in turns, in one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from coke.config.config import Config
from coke.config.view_recipe import IMAGENET_MULTICROP, ViewRecipe
from coke.model.coke_model import CoKe, build_model
from coke.model.precision import has_native_bf16
from coke.model.replica import replicate
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import Batch
from coke.tools.bench.coke_step import CokeStep, gentle
from coke.tools.bench.peers import MoCo, SwAV
from coke.tools.bench.synthetic_views import synthetic_views
from coke.tools.bench.timing import Spread, Turns, images_per_second
from coke.tools.training.training_loader import training_loader

MOCO, SWAV = "MoCo-v2", "SwAV"
#: Minutes of an epoch relative to another method's (paper, Table 6).
PAPER_RATIOS = {
    ("CoKe", MOCO): 11.1 / 18.3,
    ("CoKe", SWAV): 11.1 / 20.8,
    ("CoKe+", "CoKe"): 8.4 / 11.1,
}


_SMALL_SCALE = IMAGENET_MULTICROP[-1].scale


class Trains(Protocol):
    """One step of any method: forward, backward, optimiser, and what else belongs to it."""

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class MethodTime:
    """One method's step, in milliseconds per batch; None where it was not measured, with why.

    Attributes:
        views: of each image.
        alone: on synthetic data.
        training: with the loader.
    """

    name: str
    views: int
    precision: str
    alone: Spread | None
    training: Spread | None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How long one method takes for a batch, as a share of another's time."""

    method: str
    other: str
    alone: float
    training: float
    paper: float | None


@dataclass
class _Contender:
    name: str
    precision: str
    recipes: tuple[ViewRecipe, ...]
    build: Callable[[], Trains]


def measure_methods(
    config: Config,
    index: ImageIndex,
    device: torch.device,
    precision: str,
    turns: Turns,
) -> tuple[MethodTime, ...]:
    """Times every method's step alone and in training, in turns.

    All have the same backbone, projector, optimiser, batch size and views of the same recipe, and
    the same layout, compilation and activation checkpointing.
    """
    contenders = {c.name: c for c in _contenders(config, device, precision)}
    alone: dict[str, list[float]] = {name: [] for name in contenders}
    training: dict[str, list[float]] = {name: [] for name in contenders}
    missing: dict[str, str] = {}
    full = config.changed(data={"drop_ragged": True})
    running: dict[str, Trains] = {}
    streams: dict[tuple[ViewRecipe, ...], Iterator[Batch]] = {}
    for name, contender in contenders.items():
        try:
            running[name] = contender.build()
        except ValueError as error:
            missing[name] = str(error)
            continue
        if contender.recipes not in streams:
            loader = training_loader(full, index, contender.recipes, device)
            streams[contender.recipes] = loader.epochs()
    for name in turns.of(running):
        trains, recipes = running[name], contenders[name].recipes
        synthetic = synthetic_views(recipes, config.data.batch_size, device)
        rate = images_per_second(partial(_step, trains, synthetic), turns.seconds, device)
        alone[name].append(1000 * config.data.batch_size / rate)
        del synthetic  # another method's views may need the room
        step = partial(_train, trains, streams[recipes], device)
        rate = images_per_second(step, turns.seconds, device)
        training[name].append(1000 * config.data.batch_size / rate)
    return tuple(
        MethodTime(
            name=c.name,
            views=len(c.recipes),
            precision=c.precision,
            alone=Spread.of(alone[c.name]) if alone[c.name] else None,
            training=Spread.of(training[c.name]) if training[c.name] else None,
            missing=missing.get(c.name, ""),
        )
        for c in contenders.values()
    )


def ratios(methods: Sequence[MethodTime]) -> tuple[Ratio, ...]:
    """CoKe's time as a share of the others', as far as both were measured in one precision, and
    mixed precision's as a share of fp32's."""
    found = []
    by_name = {m.name: m for m in methods}
    pairs = [
        ("CoKe", MOCO),
        ("CoKe", SWAV),
        ("CoKe+", "CoKe"),
        ("CoKe, two views", "CoKe"),
        ("CoKe, two views", SWAV),
        ("CoKe, multi-crop", "CoKe"),
    ]
    for name, other in pairs:
        if name not in by_name or other not in by_name:
            continue
        a, b = by_name[name], by_name[other]
        if a.alone is None or b.alone is None or a.training is None or b.training is None:
            continue
        found.append(
            Ratio(
                method=name,
                other=other,
                alone=a.alone.median / b.alone.median,
                training=a.training.median / b.training.median,
                paper=PAPER_RATIOS.get((name, other)),
            )
        )
    return tuple(found)


def _contenders(config: Config, device: torch.device, precision: str) -> Iterator[_Contender]:
    one_view = config.changed(data={"views": 1, "small_views": 0})
    two_views = config.changed(data={"views": 2, "small_views": 0, "second_view": config.data.view})
    small = replace(config.data.view, size=_small_size(config), scale=_SMALL_SCALE)
    multi_crop = two_views.changed(data={"small_views": 6, "small_view": small})

    def coke(name: str, form: Config, precision: str = "fp32") -> _Contender:
        recipes = form.recipes_at(form.optimizer.epochs)
        return _Contender(name, precision, recipes, lambda: CokeStep(form, device, precision))

    def model() -> CoKe:
        built = build_model(replace(config.model, predictor_hidden=0), config.seed).train()
        replicate(  # in place, where one process trains
            built,
            device,
            channels_last=config.machine.channels_last,
            checkpoint=config.machine.checkpoint_activations,
            compile=config.machine.compile,
        )
        return built

    def moco() -> MoCo:
        method = MoCo(model(), optimizer, "fp32")
        if config.machine.compile:  # the key encoder is a copy, and copies are not compiled
            method.key_model.compile()
        return method

    yield coke("CoKe", one_view)
    mixed = _mixed_precision(device, precision)
    if mixed is not None:
        yield coke("CoKe+", one_view, mixed)
    else:
        why = "this CPU has no bf16 hardware"
        yield _Contender("CoKe+", "bf16", (config.data.view,), lambda: _refuse(why))
    yield coke("CoKe, two views", two_views)
    yield coke("CoKe, multi-crop", multi_crop)
    pair = two_views.recipes_at(config.optimizer.epochs)
    optimizer = gentle(config).optimizer
    yield _Contender(MOCO, "fp32", pair, moco)
    yield _Contender(SWAV, "fp32", pair, lambda: SwAV(model(), optimizer, "fp32"))


def _mixed_precision(device: torch.device, precision: str) -> str | None:
    """bf16 where the hardware computes it; fp16 on any other GPU, as the paper's, and where it was
    asked for; None on a CPU that would only pretend."""
    native = has_native_bf16(device)
    if device.type == "cuda" and (precision == "fp16" or not native):
        return "fp16"
    return "bf16" if native else None


def _small_size(config: Config) -> int:
    """Side of the small crops: 96 of 224, as in the release; a multiple of a ViT's patch."""
    multiple = config.model.side_multiple
    return multiple * max(
        math.ceil(8 / multiple), round(config.data.view.size * 96 / 224 / multiple)
    )


def _refuse(why: str) -> Trains:
    raise ValueError(why)


def _step(trains: Trains, views: Sequence[Tensor]) -> int:
    batch = len(views[0])
    trains.step(views, torch.arange(batch, device=views[0].device))
    return batch


def _train(trains: Trains, stream: Iterator[Batch], device: torch.device) -> int:
    batch = next(stream)
    views = [view.to(device, non_blocking=True) for view in batch.views]
    trains.step(views, batch.ids.to(device, non_blocking=True))
    return len(batch.ids)
