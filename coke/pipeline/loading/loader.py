"""The loader: order, bytes and views become the batches that a training loop iterates over."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coke.config.data import DEFAULT_WINDOW
from coke.config.machine import DEFAULT_CACHE_GB
from coke.config.view_recipe import ViewRecipe
from coke.distributed.out_of_memory import is_out_of_memory
from coke.pipeline.cache.cache_check import check_cache
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.images.jpeg import decode_problem
from coke.pipeline.loading.backend import Backend, Step, StepInputs
from coke.pipeline.loading.dali_backend import DaliBackend
from coke.pipeline.loading.ffcv_backend import FfcvBackend
from coke.pipeline.loading.pil_backend import PilBackend
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.order.epoch_order import EpochOrder
from coke.pipeline.order.order import ORDERS, check_rank, check_start, epoch_order, rank_sizes

BACKENDS = ("auto", "dali", "pil", "ffcv")
_STEPS_IN_FLIGHT = 4  # the batch that is handed out, and those that a backend reads ahead of it


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one step on this rank.

    Attributes:
        ids: (B,) int64 on the CPU.
        views: one tensor (B, 3, S, S) float32 per view, on the loader's device.
        sizes: images of this step on each rank; empty in batches of :meth:`Loader.epochs`.
    """

    ids: Tensor
    views: list[Tensor]
    sizes: tuple[int, ...] = ()


class Loader:
    """Streams a data set as batches of views, each id once an epoch; see :func:`build_loader`."""

    def __init__(
        self,
        index: ImageIndex,
        recipes: Sequence[ViewRecipe],
        *,
        order: EpochOrder,
        reader: RecordReader,
        backend: Backend,
        batch_size: int,
        seed: int,
        drop_ragged: bool,
        world: int,
        rank: int,
    ) -> None:
        self.index = index
        self.recipes = tuple(recipes)
        self.batch_size = batch_size
        self.seed = seed
        self._order = order
        self._drop_ragged = drop_ragged
        self._world = world
        self._rank = rank
        self._reader = reader
        self._backend = backend
        self._epoch, self._position = 0, 0  # of the first batch that was not handed out yet

    @property
    def samples_per_epoch(self) -> int:
        """Images of one epoch over all ranks, without a last short batch that is left out."""
        n, b = len(self._order), self.batch_size
        return n - n % b if self._drop_ragged else n

    @property
    def left_out(self) -> int:
        """Images of an epoch that are in none of its batches."""
        return len(self._order) - self.samples_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples_per_epoch // self.batch_size)

    def state(self) -> dict[str, int]:
        """Where the loader is, for :meth:`resume`: five integers.

        ``position`` counts images of ``epoch`` that were handed out, over all ranks; images read
        ahead do not count. ``seed``, ``order`` and ``window`` name the order.
        """
        return {"epoch": self._epoch, "position": self._position} | self._order_state()

    def _order_state(self) -> dict[str, int]:
        mode = ORDERS.index(self._order.mode)
        return {"seed": self.seed, "order": mode, "window": self._order.window}

    def resume(self, state: Mapping[str, int]) -> Iterator[Batch]:
        """The rest of the epoch a state was taken in, by any number of ranks.

        Raises:
            ValueError: the state is of another order; and as :meth:`epoch`.
        """
        for name, value in self._order_state().items():
            if state[name] != value:
                raise ValueError(
                    f"the loader's state was saved with {name} {state[name]}, this loader has "
                    f"{value}: the rest of that epoch is another one here"
                )
        return self.epoch(state["epoch"], start=state["position"])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one epoch from global position ``start`` on.

        Every image comes exactly once across ranks. The last batch may be short; ``drop_ragged``
        leaves a short one out (other ids in each epoch, if shuffled). Where the last batch has
        fewer images than there are ranks, some ranks get an empty one, so all take as many steps.
        Starting another epoch ends this one.

        Raises:
            ValueError: ``start`` is outside the epoch, a container cannot be had, or a record is
                damaged or cannot be decoded; the message names container, offset and id.
        """
        check_start(start, self.samples_per_epoch)
        self._epoch, self._position = epoch, start
        for batch in self._epoch_batches(epoch, start):
            first = self._position
            self._position = min(first + self.batch_size, self.samples_per_epoch)
            yield replace(batch, sizes=rank_sizes(self._position - first, self._world))

    def _epoch_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        yield from self._batches(Step(ids, epoch) for ids in self._local_ids(epoch, start))
        last_batch = (self.samples_per_epoch - start) % self.batch_size
        if 0 < last_batch <= self._rank:
            empty = [torch.empty(0, 3, r.size, r.size) for r in self.recipes]
            yield Batch(ids=torch.empty(0, dtype=torch.int64), views=empty)

    def epochs(self) -> Iterator[Batch]:
        """Batches of epoch 0, 1, 2, ... without end, for benchmarks.

        DALI's queue stays full from one epoch to the next; with single :meth:`epoch` it runs empty.
        """
        return self._batches(
            Step(ids, epoch) for epoch in itertools.count() for ids in self._local_ids(epoch, 0)
        )

    def _local_ids(self, epoch: int, start: int) -> Iterator[NDArray[np.int64]]:
        """This rank's ids of each step; none for a last batch that is too short for this rank."""
        self._reader.follow([w for w in self._order.windows(epoch) if w.stop > start])
        for first in range(start, self.samples_per_epoch, self.batch_size):
            last = min(first + self.batch_size, self.samples_per_epoch)
            positions = np.arange(first + self._rank, last, self._world)
            if len(positions) == 0:
                break
            yield self._order.ids(epoch, positions)
        self._reader.follow([])  # releases containers in the cache, for an evaluation, say

    def _batches(self, steps: Iterator[Step]) -> Iterator[Batch]:
        in_flight: deque[NDArray[np.int64]] = deque()

        def followed() -> Iterator[Step]:
            for step in steps:
                in_flight.append(step.ids)
                yield step

        stream = self._backend.stream(followed())
        while True:
            try:
                views = next(stream, None)
            except (RuntimeError, OSError) as error:
                if is_out_of_memory(error):
                    raise
                raise ValueError(self._explained(list(in_flight), error)) from error
            if views is None:
                return
            yield Batch(ids=torch.from_numpy(in_flight.popleft()), views=views)

    def _explained(self, batches: list[NDArray[np.int64]], error: Exception) -> str:
        """The message for an error: finds the record that cannot be decoded, one by one."""
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
    order: str = "global",
    window: int = DEFAULT_WINDOW,
    drop_ragged: bool = False,
    world: int = 1,
    rank: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    backend: str = "auto",
    cache_gb: float = DEFAULT_CACHE_GB,
) -> Loader:
    """A loader over a data set.

    Args:
        index: the data set.
        recipes: one per view.
        batch_size: images per step over all ranks together.
        seed: decides order and augmentation, together with the epoch.
        shuffle: a new order every epoch; otherwise ids ascending.
        order: how to shuffle: ``"global"``, one permutation of all images, or ``"blocks"``, which
            reads a few containers at a time, for remote data sets that are larger than the cache;
            docs/order.md says how much randomness it loses.
        window: largest number of containers that ``"blocks"`` shuffles together.
        drop_ragged: leave out a short last batch.
        world, rank: number of ranks, and this one.
        device: where views end up, ``"cpu"`` or ``"cuda"`` / ``"cuda:N"``.
        threads: DALI's CPU threads; all cores when None.
        backend: ``"dali"``, ``"pil"``, ``"ffcv"``, or ``"auto"`` (DALI; PIL where DALI has no
            wheel).
        cache_gb: gigabytes that containers of remote data sets may take in the cache.

    Raises:
        ValueError: an argument is out of range, a container is missing or has another size than
            the manifest says, the cache is too small for the order, or DALI is missing.
    """
    if batch_size < 1 or batch_size % world:
        raise ValueError(f"batch_size is {batch_size}; give a positive multiple of world {world}")
    check_rank(rank, world)
    if not recipes:
        raise ValueError("recipes is empty; give one ViewRecipe per view")
    if backend not in BACKENDS:
        raise ValueError(f"loader backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
    epochs = epoch_order(
        order if shuffle else "sequential",
        len(index),
        [(c.start, c.stop) for c in index.manifest.containers],
        seed=seed,
        window=window,
        live=index.live,
    )
    if index.remote is not None:
        in_flight = (
            _STEPS_IN_FLIGHT + 1
        ) * batch_size  # one more, because ranks may be a step apart
        check_cache(index, epochs, in_flight=in_flight, limit=round(cache_gb * 1e9))
    reader = RecordReader(index, cache_gb=cache_gb)
    inputs = StepInputs(reader, recipes, seed=seed)
    return Loader(
        index,
        recipes,
        order=epochs,
        reader=reader,
        backend=_backend(backend, inputs, batch_size // world, device, threads),
        batch_size=batch_size,
        seed=seed,
        drop_ragged=drop_ragged,
        world=world,
        rank=rank,
    )


def _backend(
    name: str, inputs: StepInputs, batch_size: int, device: str, threads: int | None
) -> Backend:
    if name == "ffcv":
        return FfcvBackend(inputs, batch_size=batch_size, device=device, threads=threads)
    if name == "dali" or (name == "auto" and sys.platform == "linux"):
        return DaliBackend(inputs, batch_size=batch_size, device=device, threads=threads)
    return PilBackend(inputs)
