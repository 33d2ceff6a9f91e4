"""Clocks: how often a piece of work is done in a second, and where a step's time goes."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

_WARM_UP = 3  # calls that are not counted: warm-up, and the batches that a queue holds ready


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure measured in rounds: the median, and the smallest and largest."""

    median: float
    low: float
    high: float
    rounds: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(
            median=statistics.median(values), low=min(values), high=max(values), rounds=len(values)
        )


@dataclass(frozen=True, kw_only=True)
class Span:
    """One stage of one step, in milliseconds since the measurement began."""

    stage: str
    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How things are timed in turns, so that a machine whose speed drifts drifts for all of them.

    Attributes:
        seconds: of each measurement.
        rounds: how often each is measured.
        progress: is told what is being timed.
    """

    seconds: float
    rounds: int
    progress: Callable[[str], None]

    def of(self, names: Iterable[str]) -> Iterator[str]:
        """Each name once a round, when its turn has come."""
        known = list(names)
        for r in range(1, self.rounds + 1):
            for name in known:
                self.progress(f"round {r} of {self.rounds}: {name}")
                yield name


class StageClock:
    """Cuts steps into stages: each :meth:`mark` ends the stage that began at the last one.

    On a GPU the marks are events in its stream: nothing waits for them, and what is measured is
    when the GPU gets there. On a CPU they are the time.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[list[tuple[str, Any]]] = []

    def start(self) -> None:
        """Begins a step."""
        self._marks.append([("", self._now())])

    def mark(self, stage: str) -> None:
        """Ends a stage of the step."""
        self._marks[-1].append((stage, self._now()))

    @property
    def last(self) -> str:
        """The stage that ended last in this step; empty at its start."""
        stage: str = self._marks[-1][-1][0]
        return stage

    def clear(self) -> None:
        """Forgets what was measured so far."""
        self._marks.clear()

    def steps(self) -> list[list[Span]]:
        """The spans of each step; waits for the GPU."""
        if self._on_gpu:
            torch.cuda.synchronize()
        if not self._marks:
            return []
        zero = self._marks[0][0][1]
        found = []
        for marks in self._marks:
            times = [(stage, self._milliseconds(zero, at)) for stage, at in marks]
            found.append(
                [
                    Span(stage=stage, start=before, end=at)
                    for (_, before), (stage, at) in pairwise(times)
                ]
            )
        return found

    def _now(self) -> Any:
        """Seconds on a CPU, an event in the GPU's stream."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _milliseconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) if self._on_gpu else 1000 * (end - start)


def stage_medians(steps: Sequence[Sequence[Span]]) -> dict[str, float]:
    """Median milliseconds of each stage over the steps; a stage's spans of one step are added."""
    totals: dict[str, list[float]] = defaultdict(list)
    for spans in steps:
        of_step: dict[str, float] = defaultdict(float)
        for span in spans:
            of_step[span.stage] += span.duration
        for stage, duration in of_step.items():
            totals[stage].append(duration)
    return {stage: statistics.median(durations) for stage, durations in totals.items()}


def images_per_second(
    work: Callable[[], int],
    seconds: float,
    device: torch.device,
    after_warm_up: Callable[[], None] = lambda: None,
) -> float:
    """Images per second of ``work``, which returns how many it did, repeated for a while."""
    for _ in range(_WARM_UP):
        work()
    finish(device)
    after_warm_up()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += work()
    finish(device)
    return images / (time.perf_counter() - started)


def finish(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
