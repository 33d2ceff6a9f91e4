"""What ``coke bench-epoch`` measured: plain numbers, saved as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coke.tools.bench.advice import Advice
from coke.tools.bench.memory import Memory
from coke.tools.bench.methods import MethodTime
from coke.tools.bench.paper import Projection
from coke.tools.bench.threads import ThreadSplit
from coke.tools.bench.timing import Span, Spread


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage, in milliseconds per batch; that of a part's own name is the part as a whole.

    Attributes:
        part: ``loader`` (in its own threads, ahead of the step) or ``step``.
        alone: with nothing beside it; a stage of the step, in steps on synthetic data.
        together: in training, while the loader works; None for the loader's stages, which then
            cost a step nothing but the wait for the loader.
    """

    name: str
    part: str
    alone: Spread | None
    together: Spread | None

    @property
    def whole(self) -> bool:
        return self.name == self.part

    @property
    def label(self) -> str:
        """How tables and charts name it."""
        return f"{self.name}, whole" if self.whole else self.name


@dataclass(frozen=True, kw_only=True)
class EpochBench:
    """Everything that one run of the benchmark found out.

    Attributes:
        settings: what was measured where.
        stages: in the order of a batch's way.
        loader, step, both: images per second of the loader alone, of the step alone on synthetic
            data (the ceiling), and of training.
        limited_by: ``loader`` or ``step``, the slower of the two.
        limiting_stage: the longest stage of that one.
        shared_cores: loader and step wait for each other's cores, which is what limits.
        share_of_limit, share_of_ceiling: training's rate as a share of the slower one's, and of
            the step's on synthetic data.
        advice: the settings most likely to help.
        methods: side by side with others, where it was asked for.
        threads: splits of the cores, best first, where it was asked for.
        timeline: the first steps of a measurement of training.
    """

    settings: dict[str, Any]
    stages: tuple[Stage, ...]
    loader: Spread
    step: Spread
    both: Spread
    limited_by: str
    limiting_stage: str
    shared_cores: bool
    share_of_limit: float
    share_of_ceiling: float
    projection: Projection
    advice: tuple[Advice, ...]
    memory: Memory
    methods: tuple[MethodTime, ...] = ()
    threads: tuple[ThreadSplit, ...] = ()
    timeline: tuple[tuple[Span, ...], ...] = ()
