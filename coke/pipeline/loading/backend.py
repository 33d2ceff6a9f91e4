"""A backend: what makes the views of the loader's steps. There are three: DALI, PIL and FFCV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.views.draw import ViewParameters, draw


class Step(NamedTuple):
    """Images of one step on this rank: their ids (B,), and the epoch that decides their views."""

    ids: NDArray[np.int64]
    epoch: int


class Backend(Protocol):
    """Decodes and augments, in the calling thread or ahead of it."""

    def stream(self, steps: Iterator[Step]) -> Iterator[list[Tensor]]:
        """Yields, per step, one tensor (B, 3, S, S) float32 per view, on the backend's device.

        A backend may take steps ahead of those it has yielded. Starting another stream ends this
        one.

        Raises:
            ValueError: a container cannot be had, a record is damaged, or another stream was
                started.
            RuntimeError, OSError: an image of a step that was taken cannot be decoded.
        """


class StepInputs:
    """What views are made of: stored images by id, and the numbers drawn for them.

    Attributes:
        index: the data set.
        recipes: one per view.
        reader: gives the stored bytes of ids.
    """

    def __init__(self, reader: RecordReader, recipes: Sequence[ViewRecipe], *, seed: int) -> None:
        self.index, self.reader, self.recipes = reader.index, reader, tuple(recipes)
        self._seed = seed
        self._heights, self._widths = self.index.rows["height"], self.index.rows["width"]

    def parameters(self, step: Step) -> list[ViewParameters]:
        """The drawn numbers of each view of a step."""
        heights = self._heights[step.ids].astype(np.int64)
        widths = self._widths[step.ids].astype(np.int64)
        return [
            draw(
                recipe,
                seed=self._seed,
                epoch=step.epoch,
                view=v,
                ids=step.ids,
                heights=heights,
                widths=widths,
            )
            for v, recipe in enumerate(self.recipes)
        ]

    def read(
        self, steps: Iterator[Step]
    ) -> Iterator[tuple[list[NDArray[np.uint8]], list[ViewParameters]]]:
        """Per step, the encoded images (checked when they are read first) and the numbers.

        Raises:
            ValueError: a container cannot be had, or a record is damaged.
        """
        for step in steps:
            yield self.reader.read_checked(step.ids), self.parameters(step)
