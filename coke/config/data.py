"""Section ``[data]``: which views of which images come when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from coke.config.view_recipe import IMAGENET_MULTICROP, ViewRecipe

#: Shuffled orders of images; see docs/order.md.
SHUFFLES = ("global", "blocks")
#: Containers in a window of the order ``blocks``; docs/order.md has the measurements.
DEFAULT_WINDOW = 64

#: Share of the training epochs over which the views grow from ``start_size`` to full size.
_GROWTH_SHARE = 0.75
#: Growing views change their side in steps of so many pixels, or of a larger patch.
_GROWTH_STEP = 4


def growth_step(multiple: int) -> int:
    """Pixels by which views grow whose sides are multiples of ``multiple``: at least 4."""
    return multiple * math.ceil(_GROWTH_STEP / multiple)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The views of an image, the batch, and the order of images.

    Attributes:
        views: number of large views per image, of the recipes ``view`` and ``second_view`` in
            turns.
        small_views: number of views of the recipe ``small_view`` beside them (multi-crop).
        start_size: side in pixels of the large views in the first epochs. The side grows to
            ``view.size``; 0 for no growth. See :meth:`recipes_at`.
        batch_size: images per step, over all ranks together.
        drop_ragged: leave out an epoch's last batch if it is short.
        order: ``global`` shuffles all images; ``blocks`` shuffles within ``window`` containers, as
            a remote data set larger than the cache needs.
        window: largest number of containers that ``blocks`` shuffles together.
        loader: ``auto``, ``dali``, ``pil`` or ``ffcv``.
        view, second_view, small_view: the recipe of each kind of view.
    """

    views: int = 1
    small_views: int = 0
    start_size: int = 0
    batch_size: int = 1024
    drop_ragged: bool = False
    order: str = "global"
    window: int = DEFAULT_WINDOW
    loader: str = "auto"
    view: ViewRecipe = field(default_factory=ViewRecipe)
    second_view: ViewRecipe = field(default_factory=ViewRecipe)
    small_view: ViewRecipe = IMAGENET_MULTICROP[-1]

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"data.views is {self.views}; train on 1 large view or more")
        if self.small_views < 0:
            raise ValueError(f"data.small_views is {self.small_views}; give 0 or more")
        self._check_views_agree()
        if self.start_size != 0 and not 8 <= self.start_size <= self.view.size:
            raise ValueError(
                f"data.start_size is {self.start_size}; it is 0, or between 8 and data.view.size "
                f"({self.view.size})"
            )
        if self.batch_size < 2:
            raise ValueError(
                f"data.batch_size is {self.batch_size}; batch norm needs at least 2 images"
            )
        if self.order not in SHUFFLES:
            raise ValueError(f"data.order is {self.order!r}; choose one of {', '.join(SHUFFLES)}")
        if self.window < 1:
            raise ValueError(
                f"data.window is {self.window}; give a number of containers, 1 or more"
            )

    def _check_views_agree(self) -> None:
        """Refuses an override that reached one view and was forgotten for another."""
        others = {"second_view": self.second_view} if self.views > 1 else {}
        if self.small_views:
            others["small_view"] = self.small_view
        for section, recipe in others.items():
            same = ("mean", "std") if section == "small_view" else ("size", "mean", "std")
            for name in same:
                first, other = getattr(self.view, name), getattr(recipe, name)
                if first != other:
                    raise ValueError(
                        f"data.view.{name} is {first} and data.{section}.{name} is {other}; give "
                        "both the same"
                    )

    def recipes_at(self, epoch: int, epochs: int, *, multiple: int = 1) -> tuple[ViewRecipe, ...]:
        """The views of an epoch in the loader's order: large views first.

        The side of the large views grows evenly, in steps of at least 4 pixels, from
        ``start_size`` to ``view.size``, and stays there for the last quarter of the epochs. The
        initialisation scan (epoch 0) has no small views: only large views are clustered.

        Args:
            epoch: from 0 (the scan) to ``epochs``.
            epochs: training epochs of the run.
            multiple: every step is a multiple of so many pixels, such as the patch of a ViT.
        """
        large = tuple((self.view, self.second_view)[v % 2] for v in range(self.views))
        if self.start_size != 0:
            progress = max(epoch - 1, 0) / epochs / _GROWTH_SHARE
            to_grow = progress * (self.view.size - self.start_size)
            step = growth_step(multiple)
            grown = self.start_size + step * int(to_grow / step)
            size = self.view.size if progress >= 1 else grown
            large = tuple(replace(recipe, size=size) for recipe in large)
        return large if epoch == 0 else large + (self.small_view,) * self.small_views

    def view_sizes(self) -> dict[str, int]:
        """The side in pixels of every kind of view, in training and in evaluation, by setting."""
        sizes = {
            "data.view.size": self.view.size,
            "data.view.evaluation_size": self.view.evaluation().size,
            "data.start_size": self.start_size or self.view.size,
        }
        small = {"data.small_view.size": self.small_view.size} if self.small_views else {}
        return sizes | small
