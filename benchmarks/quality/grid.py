"""The grid: named methods, and a cell for each method, number of images and epochs, and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from coke.config.config import Config
from coke.config.overrides import with_settings
from coke.config.presets import preset_named

PEERS = ("simclr", "moco-v2", "swav")
#: Heads of several granularities: in about equal factors, from the number of classes to N / 16.
FIVE: Mapping[str, Any] = {"n_clusters": [10, 30, 100, 300, 600], "min_ratio": 0.9}
#: Images that the presets' clusters are for; the two heads keep the images that each has of them.
ALL_IMAGES = 50_000


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is trained.

    Attributes:
        title: in the page's tables.
        peer: one of :data:`PEERS`; CoKe if empty.
        views: 1, the preset ``cifar10``, or 2, with alpha that falls; peers have 2.
        settings: on top of those.
        twice: for twice the epochs, to see as many views as a method with two.
        expected: what an option was expected to do, and whose it is.
    """

    title: str
    peer: str = ""
    views: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    twice: bool = False
    expected: str = ""


def _five(**sections: Mapping[str, Any]) -> dict[str, Any]:
    return {"clustering": FIVE, **sections}


def _ratio(ratio: float, upper: float = 0.0, rule: str = "auto") -> Mapping[str, Any]:
    return {"clustering": {"min_ratio": ratio, "max_ratio": upper, "dual_rule": rule}}


_WIDE = {"scale": [0.08, 1.0]}

#: Against each other, at equal views.
FORMS: dict[str, Method] = {
    "simclr": Method(title="SimCLR", peer="simclr"),
    "moco-v2": Method(title="MoCo-v2", peer="moco-v2"),
    "swav": Method(title="SwAV", peer="swav"),
    "two-views": Method(
        title="CoKe, two views, two heads",
        settings={"clustering": {"n_clusters": [500, 1000], "min_ratio": 1.0}},
    ),
    "two-five": Method(title="CoKe, two views, five heads", settings=_five()),
    "one-view": Method(title="CoKe, one view", views=1),
    "one-view-twice": Method(title="CoKe, one view, twice the epochs", views=1, twice=True),
}

#: One view. Equal sizes hold whatever the upper bound.
RATIOS: dict[str, Method] = {
    f"ratio-{ratio:g}{bound}": Method(
        title=f"{ratio:g}{', at most 3' if upper else ''}", views=1, settings=_ratio(ratio, upper)
    )
    for upper, bound in ((3.0, "-max-3"), (0.0, ""))
    for ratio in (0.8, 0.6, 0.4, 0.0)
} | {
    f"paper-rule-ratio-{ratio:g}": Method(
        title=f"{ratio:g}, rule paper", views=1, settings=_ratio(ratio, rule="paper")
    )
    for ratio in (1.0, 0.4, 0.0)
}

#: One view: labels and centers of the epoch before, or of the iteration.
COUPLINGS: dict[str, Method] = {
    "current-centers": Method(
        title="centers of this step", views=1, settings={"clustering": {"centers_from": "current"}}
    ),
    "current-labels": Method(
        title="labels of this step", views=1, settings={"clustering": {"labels_from": "current"}}
    ),
    "current-both": Method(
        title="both of this step",
        views=1,
        settings={"clustering": {"labels_from": "current", "centers_from": "current"}},
    ),
}

#: Each differs from ``two-five`` in one thing.
OPTIONS: dict[str, Method] = {
    "instance-0.5": Method(
        title="CoKe, two views, five heads, `loss.instance` 0.5",
        settings=_five(loss={"instance": 0.5}),
        expected="a target that is never an epoch old (prototypical contrastive learning)",
    ),
    "temperature-0.4": Method(
        title="temperature 0.4",
        settings=_five(loss={"temperature": 0.4}),
        expected="0.1 was 2 points worse than 0.2; SimCLR's best here is 0.5",
    ),
    "upper-bound-3": Method(
        title="at most 3 × N/K",
        settings={"clustering": {**FIVE, "max_ratio": 3.0}},
        expected="no giant clusters; at a ratio of 0.9 there are few",
    ),
    "averaged-labels": Method(
        title="averaged labels from 0.2 of the epochs",
        settings=_five(),
        expected="steadier targets (the paper's second stage, earlier)",
    ),
    "wide-crops": Method(
        title="crops from 0.08 of the area",
        settings=_five(data={"view": _WIDE, "second_view": _WIDE}),
        expected="SimCLR's crops: harder pairs",
    ),
}

#: The learning rate of the two that are compared most; 0.2 is the preset's.
SEARCH: dict[str, Method] = {
    f"{name}-lr-{lr:g}": replace(
        FORMS[name],
        title=f"{FORMS[name].title}, learning rate {lr:g}",
        settings={**FORMS[name].settings, "optimizer": {"lr": lr}},
    )
    for name in ("simclr", "two-five")
    for lr in (0.1, 0.4)
}

METHODS: dict[str, Method] = FORMS | RATIOS | COUPLINGS | OPTIONS | SEARCH


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training and its evaluation."""

    method: str
    images: int
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{self.images}-images-{self.epochs}-epochs-seed-{self.seed}"


def config_of(cell: Cell) -> Config:
    """The settings of a cell: methods differ in what their names say, and in nothing else.

    Peers take their views and schedule from the two-view form.
    """
    method = METHODS[cell.method]
    share = cell.images / ALL_IMAGES
    config = replace(preset_named("cifar10"), seed=cell.seed)
    if method.views == 2:
        config = config.changed(
            preset="cifar10-2view", data={"views": 2}, loss={"alpha_warmup": 1.0}
        )
    config = config.changed(
        data={"drop_ragged": True},
        optimizer={"epochs": cell.epochs * (2 if method.twice else 1)},
        run={"keep_checkpoints": 1},
    )
    heads = [max(2, round(k * share)) for k in (500, 1000)]
    config = with_settings(config, {"clustering": {"n_clusters": heads, "min_ratio": 1.0}})
    settings = {section: dict(values) for section, values in method.settings.items()}
    if cell.method == "two-views":
        settings["clustering"]["n_clusters"] = heads
    if cell.method == "averaged-labels":
        settings["clustering"]["first_stage_epochs"] = max(2, cell.epochs // 5)
    return with_settings(config, settings)
