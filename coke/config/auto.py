"""The preset ``auto``: all settings of a run, from what the data and the machine are.

A pure decision. :mod:`coke.tools.training.settle` finds the facts, and asks whether the choice fits
the memory and the time. Numbers that were measured: docs/quality.md has the heads, their ratio and
alpha for small networks; the ImageNet presets are the paper's. Others follow common practice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from coke.config.auto_base import Base, base_of
from coke.config.auto_reasons import SMALLEST_BATCH, reasons_of
from coke.config.clustering import NO_SECOND_STAGE
from coke.config.config import Config
from coke.config.facts import DataFacts, DeviceFacts
from coke.config.overrides import layered, with_settings
from coke.config.presets import presets
from coke.config.wishes import Wishes

IMAGENET_IMAGES = 1_281_167
#: Images of a run without a GPU: all its epochs take an hour or two on two cores.
_CPU_VISITS, _CPU_EPOCHS = 2_500_000, (10, 200)
_GPU_VISITS, _GPU_EPOCHS = 100_000_000, (50, 400)
_LEAST_EPOCHS_OF_PAPER = 100
_HEADS, _LARGEST_HEAD = 5, 5_000
#: Learning rates, at a batch of so many images.
_SMALL = presets["cifar10-2view"]
_RATES = {
    "sgd": (_SMALL.optimizer.lr, _SMALL.data.batch_size),
    "lars": (1.6, 1024),
    "adamw": (6e-4, 1024),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings, and why: a few words for each of them, by name."""

    config: Config
    reasons: Mapping[str, str]

    def lines(self) -> list[str]:
        """The reasons, a line each."""
        return [f"  {name:<14}{reason}" for name, reason in self.reasons.items()]


def choose(
    data: DataFacts,
    device: DeviceFacts,
    wishes: Wishes,
    *,
    epochs: int | None = None,
    pieces: int = 1,
) -> Choice:
    """Settings for these data on this device. What the user gave always wins.

    Args:
        epochs: how many fit the time that the user gave; None without such a limit.
        pieces: how many a step must be taken in, to fit the memory.

    Raises:
        ValueError: a given setting is unknown or wrong, or does not go with the others.
    """
    base = base_of(data, device, wishes)
    config = base.config
    batch = wishes.given("data.batch_size") or _batch(config.data.batch_size, data, device.ranks)
    name = wishes.given("optimizer.name") or config.optimizer.name
    epochs = epochs or wishes.given("optimizer.epochs") or _epochs(base, data, device)
    sizes = {} if base.paper else {"n_clusters": heads(data.images)}
    chosen = {
        "data": {"batch_size": batch},
        "optimizer": {
            "name": name,
            "accumulate": pieces,
            "lr": _lr(name, batch),
            "epochs": epochs,
            "warmup_epochs": _warmup(name, epochs),
        },
        "clustering": {"first_stage_epochs": _first_stage(config, epochs)} | sizes,
    }
    config = with_settings(config, layered([chosen, wishes.settings]))
    return Choice(
        config=config, reasons=reasons_of(config, base, data, device, wishes, rate=_rate_rule(name))
    )


def heads(images: int) -> tuple[int, ...]:
    """Clusters of up to five heads, from 10 to N / 16 in geometric steps of at least 2.

    Coarse heads give a stable target early, fine ones detail. Fewer than 160 images have smaller
    heads, whose clusters hold at least 4 images.
    """
    largest = min(max(images // 16, min(20, images // 4), 2), _LARGEST_HEAD)
    smallest = min(10, max(images // 16, 4), largest)
    count = min(_HEADS, 1 + int(math.log2(largest / smallest)))
    step = (largest / smallest) ** (1 / max(count - 1, 1))
    return tuple(_two_digits(largest / step**i) for i in reversed(range(count)))


def _two_digits(number: float) -> int:
    """Rounded down to two digits that are not zero: 620 for 625."""
    whole = int(number + 1e-6)
    unit = int("1" + "0" * max(len(str(whole)) - 2, 0))
    return whole // unit * unit


def _batch(largest: int, data: DataFacts, ranks: int) -> int:
    """About an eighth of a small data set, a power of two; no batch is left with one image."""
    eighth = 1 << round(math.log2(max(data.images / 8, 1)))
    batch = min(largest, max(eighth, SMALLEST_BATCH), data.images)
    batch = max(batch - batch % ranks, 2 * ranks)
    while data.images % batch == 1 and batch > 2 * ranks:
        batch -= ranks if ranks > 1 else 2
    return batch


def _lr(name: str, batch: int) -> float:
    """Linear in the batch for SGD and AdamW; for LARS with its square root, as in Table 9."""
    rate, at = _RATES.get(name, _RATES["sgd"])
    share = batch / at
    return float(f"{rate * (math.sqrt(share) if name == 'lars' else share):.3g}")


def _rate_rule(name: str) -> str:
    rate, at = _RATES.get(name, _RATES["sgd"])
    rule = "square root" if name == "lars" else "linear"
    return f"{rate:g} for a batch of {at:,}, {rule} rule"


def _epochs(base: Base, data: DataFacts, device: DeviceFacts) -> int:
    if base.paper:
        epochs = base.config.optimizer.epochs
        visits = epochs * IMAGENET_IMAGES
        fewer = max(_LEAST_EPOCHS_OF_PAPER, round(visits / data.images))
        return epochs if data.images <= 1.2 * IMAGENET_IMAGES else fewer
    visits, (least, most) = (_GPU_VISITS, _GPU_EPOCHS) if device.gpu else (_CPU_VISITS, _CPU_EPOCHS)
    return min(most, max(least, visits // data.images))


def _warmup(name: str, epochs: int) -> float:
    """The paper's 10 epochs for LARS, at most a tenth of all; otherwise a fiftieth, at least 1."""
    return min(10.0, epochs / 10) if name == "lars" else max(1.0, epochs / 50)


def _first_stage(config: Config, epochs: int) -> int:
    """Four fifths of the epochs, and the scan (App. B.2.2), where there is a second stage."""
    if config.clustering.first_stage_epochs == NO_SECOND_STAGE:
        return NO_SECOND_STAGE
    return 1 + round(0.8 * epochs)
