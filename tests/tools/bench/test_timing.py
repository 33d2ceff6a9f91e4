"""Medians and spans by hand; turns come in rounds."""

from __future__ import annotations

import torch

from coke.tools.bench.timing import (
    Span,
    Spread,
    StageClock,
    Turns,
    images_per_second,
    stage_medians,
)


def span(stage: str, start: float, end: float) -> Span:
    return Span(stage=stage, start=start, end=end)


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(median=3.0, low=1.0, high=8.0, rounds=3)


def test_a_stage_that_comes_twice_in_a_step_is_added_up() -> None:
    steps = [
        [span("a", 0, 1), span("b", 1, 3), span("a", 3, 5)],
        [span("a", 5, 6), span("b", 6, 10)],
        [span("a", 10, 12), span("b", 12, 13)],
    ]
    assert stage_medians(steps) == {"a": 2, "b": 2}  # of 3, 1, 2 and of 2, 4, 1


def test_the_clocks_spans_follow_one_another() -> None:
    clock = StageClock(torch.device("cpu"))
    clock.start()
    clock.mark("forgotten")
    clock.clear()
    for _ in range(2):
        clock.start()
        clock.mark("first")
        clock.mark("second")
    steps = clock.steps()
    assert [[s.stage for s in spans] for spans in steps] == [["first", "second"]] * 2
    assert steps[0][0].start == 0
    ends = [t for spans in steps for s in spans for t in (s.start, s.end)]
    assert ends == sorted(ends)
    assert all(a.end == b.start for a, b in steps)


def test_turns() -> None:
    said: list[str] = []
    turns = Turns(seconds=1, rounds=2, progress=said.append)
    assert list(turns.of(["a", "b"])) == ["a", "b", "a", "b"]
    assert said[2] == "round 2 of 2: a"


def test_warm_up_is_not_counted() -> None:
    """The callback comes between warm-up and measurement, and all calls after it count."""
    calls: list[str] = []

    def work() -> int:
        calls.append("work")
        return 7

    device = torch.device("cpu")
    rate = images_per_second(work, 0.01, device, lambda: calls.append("measure"))
    assert calls.index("measure") == 3
    assert rate > 7 / 0.02  # at least one call, in about the time given
