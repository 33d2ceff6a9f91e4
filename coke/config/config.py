"""All settings of a training run, in sections; each section has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from coke.config.clustering import ClusteringConfig
from coke.config.data import DataConfig
from coke.config.loss import LossConfig
from coke.config.machine import MachineConfig
from coke.config.model import ModelConfig
from coke.config.optimizer import OptimizerConfig
from coke.config.run import RunConfig
from coke.config.view_recipe import ViewRecipe

#: A resumed run may have other settings in these sections: they do not change what is learned.
MAY_DIFFER_ON_RESUME = ("run", "machine")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a training run.

    Attributes:
        preset: name of the preset that the settings started from.
        seed: decides initial weights and centers, the order of images, and their views.

    Raises:
        ValueError: settings of different sections do not go together.
    """

    preset: str = "custom"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    run: RunConfig = field(default_factory=RunConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; give 0 <= seed < 2**63")
        if self.loss.beta == 0 and self.model.predictor_hidden:
            raise ValueError(
                f"loss.beta is 0 and model.predictor_hidden {self.model.predictor_hidden}: no loss "
                "would reach the predictor; set model.predictor_hidden=0, which trains the same"
            )
        batch, pieces = self.data.batch_size, self.optimizer.accumulate
        if batch % pieces or batch < 2 * pieces:
            raise ValueError(
                f"optimizer.accumulate is {pieces} and data.batch_size {batch}: give a divisor "
                "that leaves at least 2 images in each piece"
            )

    def changed(self, *, preset: str | None = None, **sections: Mapping[str, Any]) -> Self:
        """A copy with other values: ``config.changed(data={"views": 2}, loss={"alpha": 0.5})``."""
        changes: dict[str, Any] = {
            name: replace(getattr(self, name), **values) for name, values in sections.items()
        }
        return replace(self, preset=self.preset if preset is None else preset, **changes)

    def recipes_at(self, epoch: int) -> tuple[ViewRecipe, ...]:
        """The views of an epoch: :meth:`DataConfig.recipes_at`."""
        epochs = self.optimizer.first_epochs
        return self.data.recipes_at(epoch, epochs, multiple=self.model.side_multiple)
