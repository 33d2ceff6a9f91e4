"""Settings of a training run: frozen dataclasses, named presets, TOML in and out.

Each part of the configuration lives beside what it configures; this module joins them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from coke.clustering.settings import ClusteringConfig
from coke.model.coke_model import ModelConfig
from coke.model.optimizer import OptimizerConfig
from coke.pipeline.order import DEFAULT_WINDOW, SHUFFLES
from coke.pipeline.reader import DEFAULT_CACHE_GB
from coke.pipeline.recipe import (
    IMAGENET_MULTICROP,
    IMAGENET_SINGLE_VIEW,
    IMAGENET_TWO_VIEW,
    NAMED_RECIPES,
    ViewRecipe,
)

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a training run.

    Attributes:
        views: large views per image, 1 or 2: ``view``, and ``second_view``.
        small_views: how many views ``small_view`` come on top of 2 large ones (multi-crop).
        epochs: training epochs; the initialisation scan (epoch 0) comes on top.
        batch_size: images per step.
        start_size: side of the views of the first epochs, which grows to ``view.size``; 0 for no
            growth. See :meth:`recipes_at`.
        temperature: lambda of the softmax (Eqn. 12).
        beta: weight of the predictor's loss where there is a predictor.
        alpha: with 2 views, weight of the label; the rest of the target is what the other view
            predicts (Sec. 3.4).
        alpha_start, alpha_warmup_epochs: alpha of the first epoch, and over how many epochs it
            moves to ``alpha``; see :meth:`alpha_at`. 0 epochs: constant, as in the paper.
        reference_temperature: temperature of the other view's prediction; 0 for ``temperature``,
            as in the paper.
        precision: ``auto``, ``fp32`` or ``bf16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        loader: ``auto``, ``dali``, ``pil`` or ``ffcv``.
        threads: DALI's CPU threads; 0 = all cores.
        order: how images are shuffled: ``global``, or ``blocks`` of ``window`` containers, which a
            remote data set larger than the cache needs.
        window: containers that ``blocks`` shuffles together at most.
        cache_dir: where files of remote data sets are kept; ``$COKE_CACHE``, or ``coke`` in the
            user's cache folder, where empty.
        cache_gb: gigabytes that their containers may take there.
        drop_ragged: leave out an epoch's last batch where it is short.
        keep_checkpoints: how many of the newest checkpoints stay.
    """

    preset: str = "custom"
    views: int = 1
    small_views: int = 0
    epochs: int = 200
    batch_size: int = 1024
    start_size: int = 0
    temperature: float = 0.1
    beta: float = 1.0
    alpha: float = 0.2
    alpha_start: float = 1.0
    alpha_warmup_epochs: int = 0
    reference_temperature: float = 0.0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    loader: str = "auto"
    threads: int = 0
    order: str = "global"
    window: int = DEFAULT_WINDOW
    cache_dir: str = ""
    cache_gb: float = DEFAULT_CACHE_GB
    drop_ragged: bool = False
    keep_checkpoints: int = 2
    view: ViewRecipe = field(default_factory=ViewRecipe)
    second_view: ViewRecipe = field(default_factory=ViewRecipe)
    small_view: ViewRecipe = IMAGENET_MULTICROP[-1]
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)

    def __post_init__(self) -> None:
        if self.views not in (1, 2):
            raise ValueError(f"views is {self.views}; train on 1 view or on 2")
        if self.small_views < 0 or (self.small_views and self.views != 2):
            raise ValueError(
                f"small_views is {self.small_views} with {self.views} view; small views learn from "
                "2 large ones: use --views 2, or small_views=0"
            )
        self._check_views_agree()
        for name in ("epochs", "batch_size", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.start_size != 0 and not 8 <= self.start_size <= self.view.size:
            raise ValueError(
                f"start_size is {self.start_size}; it is 0, or between 8 and view.size "
                f"({self.view.size})"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive")
        for name in ("alpha", "alpha_start", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a weight between 0 and 1")
        for name in ("alpha_warmup_epochs", "reference_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is positive, or 0 for none")
        if self.batch_size < 2:
            raise ValueError("batch_size is 1; batch norm needs at least 2 images")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; give 0 <= seed < 2**63")
        if self.order not in SHUFFLES:
            raise ValueError(f"order is {self.order!r}; choose one of {', '.join(SHUFFLES)}")
        if self.window < 1:
            raise ValueError(f"window is {self.window}; give a number of containers, 1 or more")
        if self.cache_gb <= 0:
            raise ValueError(f"cache_gb is {self.cache_gb}; give a positive number of gigabytes")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}; give a count, or 0 for all cores")

    def _check_views_agree(self) -> None:
        """Refuses an override that reached one view and was forgotten for another."""
        others = {"second_view": self.second_view} if self.views == 2 else {}
        if self.small_views:
            others["small_view"] = self.small_view
        for section, recipe in others.items():
            same = ("mean", "std") if section == "small_view" else ("size", "mean", "std")
            for name in same:
                first, other = getattr(self.view, name), getattr(recipe, name)
                if first != other:
                    raise ValueError(
                        f"view.{name} is {first} and {section}.{name} is {other}; give both the "
                        "same"
                    )

    def recipes_at(self, epoch: int) -> tuple[ViewRecipe, ...]:
        """The views of an epoch, large ones first: what the loader makes.

        The side of the large ones grows evenly, in steps of 4 pixels, from ``start_size`` to
        ``view.size``, which the last quarter of the epochs has. Small views cost little while there
        is little to see in a large one yet. The initialisation scan (epoch 0) clusters, and only
        large views are clustered: it takes no small ones.
        """
        large = (self.view, self.second_view)[: self.views]
        if self.start_size != 0:
            progress = max(epoch - 1, 0) / self.epochs / 0.75
            grown = self.start_size + 4 * int(progress * (self.view.size - self.start_size) / 4)
            size = self.view.size if progress >= 1 else grown
            large = tuple(replace(recipe, size=size) for recipe in large)
        return large if epoch == 0 else large + (self.small_view,) * self.small_views

    def view_sizes(self) -> dict[str, int]:
        """The side of every kind of view, in training and in evaluation, by its setting."""
        sizes = {
            "view.size": self.view.size,
            "view.evaluation_size": self.view.evaluation().size,
            "start_size": self.start_size or self.view.size,
        }
        return sizes | ({"small_view.size": self.small_view.size} if self.small_views else {})

    def alpha_at(self, epoch: int) -> float:
        """Weight of the label in an epoch: from ``alpha_start`` in epoch 1 evenly to ``alpha``.

        What a network predicts at the start is nearly flat. With most of the target from there,
        the loss stays near ln K and little is learned; labels are as sharp at the start as later.
        """
        if self.alpha_warmup_epochs == 0:
            return self.alpha
        left = max(1 - max(epoch - 1, 0) / self.alpha_warmup_epochs, 0.0)
        return self.alpha + left * (self.alpha_start - self.alpha)


#: What may differ between a run and its resumption without changing what is learned.
MACHINE_SETTINGS = ("device", "threads", "cache_dir", "cache_gb", "keep_checkpoints")

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
    clustering=ClusteringConfig(n_clusters=(500, 1000)),
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
    "cifar10-2view": replace(_SMALL, preset="cifar10-2view", views=2, alpha_warmup_epochs=10),
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


def view_recipes(named: str | Path) -> tuple[ViewRecipe, ...]:
    """One recipe per view, from a name or from a TOML file of ``[[view]]`` tables.

    Names are those of :data:`coke.pipeline.recipe.NAMED_RECIPES` and of the presets. A table sets
    the fields of :class:`ViewRecipe` that differ from the paper's single view, and ``repeat = 6``
    stands for six such views.

    Raises:
        ValueError: an unknown name or key (the message lists the valid ones), a value that does not
            fit, or a file that cannot be read.
    """
    known = {name: preset.recipes_at(preset.epochs) for name, preset in presets.items()}
    known |= NAMED_RECIPES
    if str(named) in known:
        return known[str(named)]
    path = Path(named)
    if path.suffix != ".toml" and not path.is_file():
        raise ValueError(
            f"unknown view recipe {str(named)!r}; choose one of {', '.join(known)}, "
            f"or name a TOML file of [[view]] tables"
        )
    settings = load_toml(path)
    tables = settings.pop("view", None)
    if settings:
        raise ValueError(f"{path}: unknown key {next(iter(settings))!r}; valid keys: view")
    if not isinstance(tables, list) or not tables:
        raise ValueError(f"{path} has no [[view]] table; write one for each view")
    try:
        return tuple(recipe for number, t in enumerate(tables) for recipe in _views_of(t, number))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _views_of(table: Any, number: int) -> tuple[ViewRecipe, ...]:
    if not isinstance(table, Mapping):
        raise ValueError(f"view[{number}] is {table!r}; write a [[view]] table")
    valid = [*(f.name for f in fields(ViewRecipe)), "repeat"]
    for key in table:
        if key not in valid:
            raise ValueError(
                f"unknown key {key!r} in view[{number}]; valid keys: {', '.join(valid)}"
            )
    repeat = table.get("repeat", 1)
    if type(repeat) is not int or repeat < 1:
        raise ValueError(f"view[{number}].repeat is {repeat!r}; it is a number of views")
    recipe = {key: value for key, value in table.items() if key != "repeat"}
    return (with_settings(ViewRecipe(), recipe, f"view[{number}]."),) * repeat


def load_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file. Raises ValueError where it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path} is not valid TOML: {error}") from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["model.depth=18"]`` as nested settings; values are TOML, bare words are strings.

    Raises:
        ValueError: an assignment without ``=``.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment!r} has no '='; write --set model.depth=18")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        at = settings
        *parents, last = key.strip().split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"--set {assignment!r}: {parent!r} was set to {at!r} before")
        at[last] = value
    return settings


def with_settings(config: C, settings: Mapping[str, Any], where: str = "") -> C:
    """A copy of a config dataclass with nested settings applied.

    Raises:
        ValueError: an unknown key (the message lists the valid ones) or a value of another type.
    """
    assert is_dataclass(config) and not isinstance(config, type)
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in hints:
            raise ValueError(f"unknown config key {where + key!r}; valid keys: {', '.join(hints)}")
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ValueError(f"config key {where + key!r} is a section, not {value!r}")
            changes[key] = with_settings(current, value, f"{where}{key}.")
        else:
            changes[key] = _checked(value, hints[key], where + key)
    return replace(config, **changes)


def _checked(value: Any, hint: Any, name: str) -> Any:
    """The value in the field's type: integers may stand for floats, lists for tuples."""
    if get_origin(hint) is tuple:
        arguments = get_args(hint)
        if isinstance(value, list | tuple):
            if arguments[-1] is Ellipsis:
                return tuple(_checked(v, arguments[0], name) for v in value)
            if len(value) == len(arguments):
                return tuple(_checked(v, a, name) for v, a in zip(value, arguments, strict=True))
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    shown = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    raise ValueError(f"config key {name!r} is {value!r}; it must be {shown}")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """What differs between two configs of one type, as ``key: a != b`` lines."""
    found = []
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if is_dataclass(x):
            found += differences(x, y, f"{where}{f.name}.")
        elif x != y:
            found.append(f"{where}{f.name}: {x!r} != {y!r}")
    return found


def to_toml(config: Any, section: str = "") -> str:
    """A config as TOML that :func:`load_toml` and :func:`with_settings` read back."""
    plain, nested = [], []
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            nested.append(f"\n[{section}{f.name}]\n" + to_toml(value, f"{section}{f.name}."))
        else:
            plain.append(f"{f.name} = {json.dumps(value)}\n")  # JSON scalars and arrays are TOML
    return "".join(plain + nested)
