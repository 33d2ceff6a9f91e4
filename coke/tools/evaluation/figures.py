"""The figures of an evaluation's table: means over seeds, confidence intervals, and their names."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from coke.tools.evaluation.accuracy import Accuracy

#: Standard normal quantile of a two-sided interval of 95 %.
_Z = 1.959964
#: Metrics by their name in a record: heading of the column, and decimals.
METRICS: dict[str, tuple[str, int]] = {
    "top1": ("top-1 %", 2),
    "top5": ("top-5 %", 2),
    "clusters": ("clusters", 0),
    "accuracy": ("accuracy %", 2),
    "purity": ("purity %", 2),
    "nmi": ("NMI", 3),
    "ari": ("ARI", 3),
    "smallest": ("smallest", 0),
    "largest": ("largest", 0),
}
_INTERVAL, _DEVIATION, _SEEDS, _CHOSEN = "_interval", "_deviation", "_seeds", "chosen"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a row.

    Attributes:
        value: the mean over seeds.
        deviation: the standard deviation over seeds (n - 1 in the denominator); None for one seed.
        seeds: number of seeds.
        interval: 95 % confidence interval, see :func:`wilson`; None where there is none.
    """

    value: float
    deviation: float | None = None
    seeds: int = 1
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float], test_images: int | None = None) -> Self:
        """The figure of one value per seed.

        Args:
            test_images: number of images whose share of right answers the values are, in percent;
                gives the interval. None for other metrics.
        """
        mean = statistics.fmean(values)
        return cls(
            value=mean,
            deviation=statistics.stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            interval=None if test_images is None else wilson(mean, test_images),
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: what one representation or network came to.

    Attributes:
        figures: by metric, a key of :data:`METRICS`.
        chosen: settings that were chosen for this row alone, such as a searched learning rate.
    """

    figures: Mapping[str, Figure]
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return self.figures["top1"].value

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None where it would say nothing."""
        return self.figures["top5"].value if "top5" in self.figures else None

    def record(self) -> dict[str, Any]:
        """The row in ``eval.json``: ``{"top1": 81.2, "top1_interval": [79.1, 83.1], ...}``."""
        found: dict[str, Any] = {}
        for name, figure in self.figures.items():
            found[name] = figure.value
            if figure.interval is not None:
                found[name + _INTERVAL] = list(figure.interval)
            if figure.deviation is not None:
                found[name + _DEVIATION] = figure.deviation
                found[name + _SEEDS] = figure.seeds
        if "top1" in found:
            found.setdefault("top5", None)
        return found | ({_CHOSEN: dict(self.chosen)} if self.chosen else {})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The row of :meth:`record`, or of a record without intervals and deviations."""
        figures = {
            name: Figure(
                value=record[name],
                deviation=record.get(name + _DEVIATION),
                seeds=record.get(name + _SEEDS, 1),
                interval=None if (ends := record.get(name + _INTERVAL)) is None else tuple(ends),
            )
            for name in METRICS
            if record.get(name) is not None
        }
        return cls(figures=figures, chosen=record.get(_CHOSEN, {}))


def accuracy_row(
    found: Accuracy | Sequence[Accuracy], test_images: int, chosen: Mapping[str, Any] | None = None
) -> Row:
    """A row of top-1 (with its interval) and top-5 accuracy, of one seed or of several."""
    each = [found] if isinstance(found, Accuracy) else list(found)
    figures = {"top1": Figure.of([accuracy.top1 for accuracy in each], test_images)}
    top5 = [accuracy.top5 for accuracy in each if accuracy.top5 is not None]
    if len(top5) == len(each):
        figures["top5"] = Figure.of(top5)
    return Row(figures=figures, chosen=chosen or {})


def wilson(percent: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n independent images, in percent.

    It says how far the share may be from that of endlessly many such images. It knows nothing of
    seeds. (Wilson, J. Am. Stat. Assoc. 22, 1927.)
    """
    p, z2 = percent / 100, _Z**2
    middle = p + z2 / (2 * n)
    half = _Z * math.sqrt(max(p * (1 - p), 0.0) / n + z2 / (4 * n * n))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return 100 * max(low, 0.0), 100 * min(high, 1.0)
