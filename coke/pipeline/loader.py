"""The loader: order -> bytes -> views. What a training loop iterates over."""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.pipeline import dali
from coke.pipeline.index import ImageIndex
from coke.pipeline.order import permute
from coke.pipeline.pil_reference import PilViews
from coke.pipeline.reader import RecordReader
from coke.pipeline.recipe import ViewParameters, ViewRecipe, draw

BACKENDS = ("auto", "dali", "pil", "ffcv")
DALI_MISSING = (
    "NVIDIA DALI is not installed; `pip install nvidia-dali-cuda130` brings it, also to machines "
    "without a GPU (nvidia-dali-cuda120 for older drivers); or use --set loader=pil, which is slow"
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``ids`` (B,) int64 on the CPU; ``views`` (B, 3, S, S) float32 each, on its device."""

    ids: Tensor
    views: list[Tensor]


class Loader:
    """Streams a data set as batches of views, each id once an epoch; see :func:`build_loader`."""

    def __init__(
        self,
        index: ImageIndex,
        recipes: Sequence[ViewRecipe],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_ragged: bool,
        world: int,
        rank: int,
        engine: Any,
    ) -> None:
        self.index = index
        self.recipes = tuple(recipes)
        self.batch_size = batch_size
        self.seed = seed
        self._shuffle = shuffle
        self._drop_ragged = drop_ragged
        self._world = world
        self._rank = rank
        self._reader = RecordReader(index)
        self._engine = engine
        self._heights = index.rows["height"]
        self._widths = index.rows["width"]

    @property
    def samples_per_epoch(self) -> int:
        """Images of one epoch over all ranks, without a ragged rest that is left out."""
        n, b = len(self.index), self.batch_size
        return n - n % b if self._drop_ragged else n

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples_per_epoch // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one epoch from global position ``start`` on.

        Every id comes exactly once across ranks. A ragged last batch is short, or left out with
        ``drop_ragged`` (which ids are left out changes by epoch when shuffled). Where the last
        batch is shorter than the world, some ranks get an empty one: every rank takes as many
        steps. One epoch at a time: starting another ends this one.

        Raises:
            ValueError: ``start`` is outside the epoch, or a record cannot be decoded; the message
                names container, offset and id.
        """
        if not 0 <= start <= self.samples_per_epoch:
            raise ValueError(
                f"start is {start}; positions of an epoch are 0..{self.samples_per_epoch}"
            )
        yield from self._batches((ids, epoch) for ids in self._local_ids(epoch, start))
        last_batch = (self.samples_per_epoch - start) % self.batch_size
        if 0 < last_batch <= self._rank:
            empty = [torch.empty(0, 3, r.size, r.size) for r in self.recipes]
            yield Batch(ids=torch.empty(0, dtype=torch.int64), views=empty)

    def epochs(self) -> Iterator[Batch]:
        """Batches of epoch 0, 1, 2, ... without end: what a benchmark reads.

        Unlike one :meth:`epoch` after the other, it keeps DALI's queue full from one to the next.
        """
        return self._batches(
            (ids, epoch) for epoch in itertools.count() for ids in self._local_ids(epoch, 0)
        )

    def _local_ids(self, epoch: int, start: int) -> Iterator[NDArray[np.int64]]:
        """This rank's ids of each step; none for a last batch that is too short for this rank."""
        for first in range(start, self.samples_per_epoch, self.batch_size):
            last = min(first + self.batch_size, self.samples_per_epoch)
            positions = np.arange(first + self._rank, last, self._world)
            if len(positions) == 0:
                return
            if self._shuffle:
                positions = permute(positions, seed=self.seed, epoch=epoch, n=len(self.index))
            yield positions

    def _batches(self, steps: Iterator[tuple[NDArray[np.int64], int]]) -> Iterator[Batch]:
        in_flight: deque[NDArray[np.int64]] = deque()

        def feed() -> Iterator[tuple[list[NDArray[np.uint8]], list[ViewParameters]]]:
            for ids, epoch in steps:
                in_flight.append(ids)
                yield self._reader.read(ids), self._draw(ids, epoch)

        stream = self._engine.stream(feed())
        while True:
            try:
                views = next(stream, None)
            except (RuntimeError, OSError) as error:
                raise ValueError(self._blame(list(in_flight), error)) from error
            if views is None:
                return
            yield Batch(ids=torch.from_numpy(in_flight.popleft()), views=views)

    def _draw(self, ids: NDArray[np.int64], epoch: int) -> list[ViewParameters]:
        heights = self._heights[ids].astype(np.int64)
        widths = self._widths[ids].astype(np.int64)
        return [
            draw(r, seed=self.seed, epoch=epoch, view=v, ids=ids, heights=heights, widths=widths)
            for v, r in enumerate(self.recipes)
        ]

    def _blame(self, batches: list[NDArray[np.int64]], error: Exception) -> str:
        """Finds the record that cannot be decoded: one at a time, which only errors pay for."""
        from coke.pipeline.jpeg import decode_problem

        for ids in batches:
            for image_id, encoded in zip(ids.tolist(), self._reader.read(ids), strict=True):
                problem = decode_problem(encoded.tobytes())
                if problem is not None:
                    return (
                        f"cannot decode {self.index.describe(image_id)}: {problem}; "
                        f"`coke verify {self.index.folder}` lists all such records"
                    )
        return f"the loader stopped on {self.index.folder}: {error}"


def build_loader(
    index: ImageIndex,
    recipes: Sequence[ViewRecipe],
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    drop_ragged: bool = False,
    world: int = 1,
    rank: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    backend: str = "auto",
) -> Loader:
    """A loader over a data set.

    Args:
        index: the data set.
        recipes: one per view.
        batch_size: images per step over all ranks together.
        seed: decides order and augmentation, together with the epoch.
        shuffle: a new permutation every epoch; otherwise ids in order.
        drop_ragged: leave out the last batch where it is short.
        world, rank: number of ranks, and this one.
        device: where views end up, ``"cpu"`` or ``"cuda"`` / ``"cuda:N"``.
        threads: DALI's CPU threads; all cores when None.
        backend: ``"dali"``, ``"pil"``, ``"ffcv"`` (FFCV's own loader, to compare with; see
            :mod:`coke.pipeline.ffcv_loader`), or ``"auto"`` (DALI; PIL only where DALI has no
            wheel).

    Raises:
        ValueError: an argument is out of range, or DALI is missing.
    """
    if batch_size < 1 or batch_size % world:
        raise ValueError(f"batch_size is {batch_size}; give a positive multiple of world {world}")
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank} in a world of {world}; ranks are 0..{world - 1}")
    if not recipes:
        raise ValueError("recipes is empty; give one ViewRecipe per view")
    if backend not in BACKENDS:
        raise ValueError(f"loader backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
    if backend == "ffcv":
        from coke.pipeline.ffcv_loader import FfcvLoader

        return FfcvLoader(
            index,
            recipes,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_ragged=drop_ragged,
            world=world,
            rank=rank,
            device=device,
            threads=threads,
        )
    if backend == "dali" or (backend == "auto" and sys.platform == "linux"):
        if not dali.AVAILABLE:
            raise ValueError(DALI_MISSING)
        engine: Any = dali.DaliViews(
            recipes,
            batch_size=batch_size // world,
            device=device,
            threads=threads or len(os.sched_getaffinity(0)),
        )
    else:
        engine = PilViews(recipes)
    return Loader(
        index,
        recipes,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_ragged=drop_ragged,
        world=world,
        rank=rank,
        engine=engine,
    )
