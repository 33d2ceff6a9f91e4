"""What the rules of advice look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coke.config.config import Config
from coke.tools.page.evaluations import Evaluation
from coke.tools.page.run_records import RunRecords

#: Epochs after the scan from which on a loss at ln K or a high churn is no longer a beginning.
SETTLED_EPOCH = 3


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run's records, settings and evaluations."""

    records: RunRecords
    config: Config
    evaluations: Sequence[Evaluation] = ()
