"""What a measurement keeps beside a search for memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.bench import measurement
from coke.tools.bench.coke_step import CokeStep
from coke.tools.bench.loading_stages import LoadingStages
from coke.tools.bench.measurement import Measurement
from coke.tools.bench.timing import Turns


@pytest.mark.slow
def test_lets_go_of_what_training_does_not_hold(
    stripes: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's stages after they were timed; network and optimiser before a search."""
    built: dict[str, weakref.ref[Any]] = {}

    class Stages(LoadingStages):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            built["stages"] = weakref.ref(self)

    class Step(CokeStep):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            built["weights"] = weakref.ref(next(self.learner.model.parameters()))

    monkeypatch.setattr(measurement, "LoadingStages", Stages)
    monkeypatch.setattr(measurement, "CokeStep", Step)
    left: list[set[str]] = []  # objects alive when memory was given back

    def release(_device: torch.device) -> None:
        gc.collect()
        left.append({name for name, there in built.items() if there() is not None})

    monkeypatch.setattr(measurement, "release_unused", release)
    measured = Measurement(tiny, ImageIndex(stripes / "train"), torch.device("cpu"), "fp32")
    measured.run(Turns(seconds=0.01, rounds=1, progress=lambda _: None))
    assert measured.rate_with(1, 0.01) > 0
    measured.release_step()
    assert left == [{"weights"}, set()]
    whole = {stage.label: stage for stage in measured.stages() if stage.whole}
    assert set(whole) == {"loader, whole", "step, whole"}
    step = whole["step, whole"]
    assert step.alone is not None and step.together is not None
    assert step.alone.median == pytest.approx(1000 * 16 / measured.step.median)
    assert step.together.median == pytest.approx(1000 * 16 / measured.both.median)
