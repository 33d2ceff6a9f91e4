"""From an image file to what an exported network takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from coke.config.view_recipe import ViewRecipe

#: How crops are resized: two linear passes whose filter widens as the image shrinks, as in PIL.
INTERPOLATION = "bilinear, with antialiasing"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The view of evaluations, which ``coke embed`` shows the network too.

    A center crop, square, is resized to ``size``; RGB values in 0..1 then lose ``mean`` and are
    divided by ``std``.

    Attributes:
        size: side of the network's input in pixels.
        center_fraction: side of the crop as a share of the shorter image side.
        mean, std: per channel, red first, in the scale 0..1.
        interpolation: of the resizing.
    """

    size: int
    center_fraction: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = INTERPOLATION

    @classmethod
    def of(cls, recipe: ViewRecipe) -> Self:
        """The pre-processing of evaluations on views of a recipe."""
        view = recipe.evaluation()
        return cls(
            size=view.size, center_fraction=view.center_fraction, mean=view.mean, std=view.std
        )

    @property
    def shorter_side(self) -> int:
        """The same crop for tools that resize first: resize the shorter side to so many pixels,
        then cut ``size`` out of the center.
        """
        return round(self.size / self.center_fraction)

    def record(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {**asdict(self), "shorter_side": self.shorter_side, "channels": "RGB"}
