"""Settings of a training run: one frozen dataclass.

Each part of the configuration lives beside what it configures; this module joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from coke.config.clustering import ClusteringConfig
from coke.config.view_recipe import IMAGENET_MULTICROP, ViewRecipe
from coke.files.byte_size import parse_bytes
from coke.model.coke_model import ModelConfig
from coke.model.optimizer import OptimizerConfig, scaled_to_batch
from coke.pipeline.loading.reader import DEFAULT_CACHE_GB
from coke.pipeline.order.order import DEFAULT_WINDOW, SHUFFLES


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a training run.

    Attributes:
        views: large views per image, 1 or 2: ``view``, and ``second_view``.
        small_views: how many views ``small_view`` come on top of 2 large ones (multi-crop).
        epochs: training epochs; the initialisation scan (epoch 0) comes on top.
        batch_size: images per step, over all ranks together.
        accumulate: pieces a step is taken in, one after the other, which saves memory: the loss,
            labels, duals, centers and counts are those of the whole batch; batch norm sees a piece.
        start_size: side of the views of the first epochs, which grows to ``view.size``; 0 for no
            growth. See :meth:`recipes_at`.
        temperature: lambda of the softmax (Eqn. 12).
        beta: weight of the predictor's loss where there is a predictor.
        alpha: with 2 views, weight of the label; the rest of the target is what the other view
            predicts (Sec. 3.4).
        alpha_start, alpha_warmup: alpha of the first epoch, and the share of the epochs over which
            it moves to ``alpha``; see :meth:`alpha_at`. 0: constant, as in the paper.
        reference_temperature: temperature of the other view's prediction; 0 for ``temperature``,
            as in the paper.
        precision: ``auto``, ``fp32``, ``tf32``, ``bf16`` or ``fp16`` (with a gradient scaler).
        channels_last: memory layout of images and convolutions; the faster one almost everywhere.
        compile: ``torch.compile`` the network.
        checkpoint_activations: compute a block's activations again in the backward pass instead of
            keeping them.
        memory_budget: such as ``16GiB``: refuse to start where a rank's estimate is above it.
        rank_timeout: seconds that ranks wait for each other before they give up.
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
        keep_checkpoints: how many of the newest checkpoints stay, beside that of the best probe.
        checkpoint_every: steps between two checkpoints within an epoch; 0 for ends of epochs only.
        max_bad_steps: steps in a row that are not finite before the run ends.
        probe_every: epochs between two k-NN probes on labelled images; 0 for none.
        probe_images: training images of a probe at most; half as many are classified.
    """

    preset: str = "custom"
    views: int = 1
    small_views: int = 0
    epochs: int = 200
    batch_size: int = 1024
    accumulate: int = 1
    start_size: int = 0
    temperature: float = 0.1
    beta: float = 1.0
    alpha: float = 0.2
    alpha_start: float = 1.0
    alpha_warmup: float = 0.0
    reference_temperature: float = 0.0
    seed: int = 0
    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    checkpoint_activations: bool = False
    memory_budget: str = ""
    rank_timeout: float = 600.0
    device: str = "auto"
    loader: str = "auto"
    threads: int = 0
    order: str = "global"
    window: int = DEFAULT_WINDOW
    cache_dir: str = ""
    cache_gb: float = DEFAULT_CACHE_GB
    drop_ragged: bool = False
    keep_checkpoints: int = 2
    checkpoint_every: int = 0
    max_bad_steps: int = 5
    probe_every: int = 0
    probe_images: int = 10_000
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
        for name in ("epochs", "batch_size", "accumulate", "keep_checkpoints", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("checkpoint_every", "probe_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number, or 0 for never")
        if self.probe_images < 2:
            raise ValueError(f"probe_images is {self.probe_images}; a probe needs at least 2")
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
        if not 0 <= self.alpha_warmup <= 1:
            raise ValueError(
                f"alpha_warmup is {self.alpha_warmup}; it is a share of the epochs, from 0 to 1"
            )
        if self.beta == 0 and self.model.predictor_hidden:
            raise ValueError(
                f"beta is 0 and model.predictor_hidden {self.model.predictor_hidden}: no loss "
                "would reach the predictor; set model.predictor_hidden=0, which trains the same"
            )
        if self.reference_temperature < 0:
            raise ValueError(
                f"reference_temperature is {self.reference_temperature}; it is positive, or 0 for "
                "temperature"
            )
        if self.batch_size < 2:
            raise ValueError("batch_size is 1; batch norm needs at least 2 images")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate} and batch_size {self.batch_size}: give a divisor "
                "that leaves at least 2 images in each piece"
            )
        if self.memory_budget:
            parse_bytes(self.memory_budget)
        if self.rank_timeout <= 0:
            raise ValueError(f"rank_timeout is {self.rank_timeout}; give seconds, more than 0")
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

    @property
    def scaled_optimizer(self) -> OptimizerConfig:
        """The optimiser's settings with the learning rate of this batch size."""
        return scaled_to_batch(self.optimizer, self.batch_size)

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
        if self.alpha_warmup == 0:
            return self.alpha
        left = max(1 - max(epoch - 1, 0) / (self.alpha_warmup * self.epochs), 0.0)
        return self.alpha + left * (self.alpha_start - self.alpha)


#: What may differ between a run and its resumption without changing what is learned.
MACHINE_SETTINGS = (
    "device",
    "threads",
    "cache_dir",
    "cache_gb",
    "keep_checkpoints",
    "checkpoint_every",
    "max_bad_steps",
    "probe_every",
    "probe_images",
    "channels_last",
    "compile",
    "checkpoint_activations",
    "memory_budget",
    "rank_timeout",
)
