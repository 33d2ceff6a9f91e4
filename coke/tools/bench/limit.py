"""Which part limits training: the loader, the step, or the cores that both share."""

from __future__ import annotations

from dataclasses import dataclass

_NEARLY_ALL = 0.9  # of the slower one's rate: what it costs to have the other one beside it
_IN_TURNS = 0.15  # how far training is from one after the other, at most


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What training's rate says beside those of its parts.

    Attributes:
        slower: ``loader`` or ``step``.
        share: training's rate as a share of the slower one's alone.
        shared_cores: on a CPU, both get done as if one worked after the other.
    """

    slower: str
    share: float
    shared_cores: bool


def find_limit(loader: float, step: float, training: float, device_type: str) -> Limit:
    """Compares rates, in images per second.

    Where the parts have cores of their own, training is nearly as fast as the slower one. Where
    they take turns at the same cores, their times add up: 1 / (1 / loader + 1 / step).
    """
    slower = min(loader, step)
    in_turns = 1 / (1 / loader + 1 / step)
    return Limit(
        slower="loader" if loader < step else "step",
        share=training / slower,
        shared_cores=device_type == "cpu"
        and training < _NEARLY_ALL * slower
        and abs(training - in_turns) <= _IN_TURNS * in_turns,
    )
