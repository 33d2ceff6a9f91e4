"""Table 6 on this machine: steps of CoKe, MoCo-v2 and SwAV in turns, in one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from coke.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.model.peers import MoCo, SwAV
from coke.model.precision import has_native_bf16
from coke.pipeline.index import ImageIndex
from coke.pipeline.loader import Batch, build_loader
from coke.pipeline.recipe import IMAGENET_MULTICROP, ViewRecipe
from coke.tools.bench.coke_step import CokeStep
from coke.tools.bench.timing import Spread, images_per_second

MOCO, SWAV = "MoCo-v2", "SwAV"
#: Minutes of an epoch relative to another method's (paper, Table 6).
PAPER_RATIOS = {("CoKe", MOCO): 11.1 / 18.3, ("CoKe", SWAV): 11.1 / 20.8, ("CoKe+", "CoKe"): 8.4 / 11.1}


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
    *,
    seconds: float,
    rounds: int,
    progress: Callable[[str], None],
) -> tuple[MethodTime, ...]:
    """Times every method's step alone and in training, in turns.

    All have the same backbone, projector, optimiser, batch size and views of the same recipe.
    """
    contenders = list(_contenders(config, device, precision))
    alone: dict[str, list[float]] = {c.name: [] for c in contenders}
    training: dict[str, list[float]] = {c.name: [] for c in contenders}
    missing: dict[str, str] = {}
    running: dict[str, Trains] = {}
    streams: dict[tuple[ViewRecipe, ...], Iterator[Batch]] = {}
    for contender in contenders:
        try:
            running[contender.name] = contender.build()
        except ValueError as error:
            missing[contender.name] = str(error)
            continue
        if contender.recipes not in streams:
            streams[contender.recipes] = _stream(config, index, contender.recipes, device)
    for r, contender in itertools.product(range(1, rounds + 1), contenders):
        if contender.name in missing:
            continue
        trains, stream = running[contender.name], streams[contender.recipes]
        progress(f"round {r} of {rounds}: {contender.name} alone")
        views = _synthetic(contender.recipes, config.batch_size, device)
        ids = torch.arange(config.batch_size, device=device)
        rate = images_per_second(lambda: _step(trains, views, ids), seconds, device)  # noqa: B023
        alone[contender.name].append(1000 * config.batch_size / rate)
        del views
        progress(f"round {r} of {rounds}: {contender.name} with the loader")
        rate = images_per_second(lambda: _train(trains, stream, device), seconds, device)  # noqa: B023
        training[contender.name].append(1000 * config.batch_size / rate)
    return tuple(
        MethodTime(
            name=c.name,
            views=len(c.recipes),
            precision=c.precision,
            alone=Spread.of(alone[c.name]) if alone[c.name] else None,
            training=Spread.of(training[c.name]) if training[c.name] else None,
            missing=missing.get(c.name, ""),
        )
        for c in contenders
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
    one, two = (config.view,), (config.view,) * 2

    def model() -> CoKe:
        built = build_model(config.model, config.seed)
        built = built.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return built.train()

    def coke(views: int, precision: str = "fp32") -> CokeStep:
        return CokeStep(replace(config, views=views), device, precision)

    yield _Contender("CoKe", "fp32", one, lambda: coke(1))
    amp = precision if precision != "fp32" else "bf16"
    if has_native_bf16(device):
        yield _Contender("CoKe+", amp, one, lambda: coke(1, amp))
    else:
        yield _Contender("CoKe+", amp, one, lambda: _refuse(f"no hardware for {amp} here"))
    yield _Contender("CoKe, two views", "fp32", two, lambda: coke(2))
    small = tuple(
        replace(config.view, size=max(8, round(config.view.size * 96 / 224)), scale=crop.scale)
        for crop in IMAGENET_MULTICROP[2:]
    )
    yield _Contender("CoKe, multi-crop", "fp32", two + small, lambda: coke(8))
    yield _Contender(MOCO, "fp32", two, lambda: MoCo(model(), config.optimizer, "fp32"))
    yield _Contender(SWAV, "fp32", two, lambda: SwAV(model(), config.optimizer, "fp32"))


def _refuse(why: str) -> Trains:
    raise ValueError(why)


def _stream(
    config: Config, index: ImageIndex, recipes: Sequence[ViewRecipe], device: torch.device
) -> Iterator[Batch]:
    return build_loader(
        index,
        recipes,
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        window=config.window,
        cache_gb=config.cache_gb,
        drop_ragged=True,
        device=str(device),
        threads=config.threads or None,
        backend=config.loader,
    ).epochs()


def _synthetic(
    recipes: Sequence[ViewRecipe], batch_size: int, device: torch.device
) -> list[Tensor]:
    return [
        torch.randn(batch_size, 3, r.size, r.size, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for r in recipes
    ]


def _step(trains: Trains, views: Sequence[Tensor], ids: Tensor) -> int:
    trains.step(views, ids)
    return len(ids)


def _train(trains: Trains, stream: Iterator[Batch], device: torch.device) -> int:
    batch = next(stream)
    views = [view.to(device, non_blocking=True) for view in batch.views]
    trains.step(views, batch.ids.to(device, non_blocking=True))
    return len(batch.ids)
