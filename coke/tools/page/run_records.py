"""The epochs of a run as columns of numbers, whatever its records lack or hold beyond that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Accuracies of the online probe by their key in a record, with their names.
PROBES = {"probe": "k-NN top-1", "linear_probe": "linear top-1"}
#: Effective ranks (RankMe) by their key, with the features that they are of.
PROJECTED_RANK = "projected_rank"
RANKS = {"effective_rank": "backbone", PROJECTED_RANK: "projected, which are clustered"}


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """The lines of ``metrics.jsonl``, oldest first.

    Attributes:
        lines: as :meth:`coke.tools.runs.run_folder.RunFolder.records` gives them.
        count: ids of the data set, for runs whose records do not tell the number of images.
    """

    lines: Sequence[Mapping[str, Any]]
    count: int

    @property
    def epochs(self) -> list[int]:
        return [int(line["epoch"]) for line in self.lines]

    @property
    def trained(self) -> RunRecords:
        """The same without the initialisation scan, epoch 0, which moves no weight."""
        return RunRecords(
            lines=[line for line in self.lines if int(line["epoch"]) > 0], count=self.count
        )

    def values(self, name: str) -> list[float | None]:
        """A number of each epoch; None where it is missing, NaN or infinite."""
        return [_finite(line.get(name)) for line in self.lines]

    @property
    def n_clusters(self) -> list[int]:
        """Clusters of each head."""
        heads = self.lines[-1].get("heads") if self.lines else None
        return [int(head["n_clusters"]) for head in heads or []]

    def of_head(self, head: int, name: str) -> list[float | None]:
        """A number of a head in each epoch; None as in :meth:`values`."""
        found = [line.get("heads") or [] for line in self.lines]
        return [_finite(heads[head].get(name)) if head < len(heads) else None for heads in found]

    @property
    def images(self) -> int:
        """Images of an epoch."""
        seen = [
            round(rate * seconds) + int(left or 0)
            for rate, seconds, left in zip(
                self.values("images_per_second"),
                self.values("seconds"),
                self.values("left_out"),
                strict=True,
            )
            if rate is not None and seconds is not None
        ]
        return max(seen, default=0) or self.count

    @property
    def not_finite(self) -> list[str]:
        """Epoch and name of every number that is NaN or infinite, in words."""
        return [
            f"epoch {line['epoch']}: {name} is {value}"
            for line in self.lines
            for name, value in _numbers(line)
            if not math.isfinite(value)
        ]


def last(values: Sequence[float | None]) -> float | None:
    """The last value that is there."""
    return next((value for value in reversed(values) if value is not None), None)


def known(values: Sequence[float | None]) -> list[float]:
    """The values that are there."""
    return [value for value in values if value is not None]


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _numbers(line: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = [(name, value) for name, value in line.items() if isinstance(value, float)]
    for head, of in enumerate(line.get("heads") or []):
        found += [(f"{k} of head {head}", v) for k, v in of.items() if isinstance(v, float)]
    return found
