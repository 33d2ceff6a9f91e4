"""Decides which images of a split are stored, and under which ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from coke.distributed.workers import Mapper
from coke.files.workspace import Workspace
from coke.pipeline.sources import Source
from coke.tools.datasets.duplicates import duplicate_groups, without_repeats
from coke.tools.datasets.ingest_checks import Checked
from coke.tools.datasets.ingest_report import one_line
from coke.tools.datasets.ingest_settings import IngestSettings
from coke.tools.datasets.stable_ids import Assignment, Base, assign_ids

_SHOWN = 5  # rejected keys that an error message names


@dataclass(frozen=True, kw_only=True)
class IngestRun:
    """The objects that all steps of an ingest use."""

    settings: IngestSettings
    strict: bool
    work: Workspace
    map: Mapper
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its images, their verdicts and ids, and the images that are left out."""

    name: str
    source: Source
    base: Base | None
    checked: Checked
    assignment: Assignment
    rejected: list[tuple[str, str]]
    duplicates: list[list[int]]


def decide_split(
    run: IngestRun, name: str, source: Source, checked: Checked, base: Base | None
) -> Split:
    """Decides which images are stored, and under which ids."""
    problems = checked.problems
    rejected = [(source.keys[i], problems[i]) for i in sorted(problems)]
    if rejected and (run.strict or len(rejected) == len(source)):
        run.work.discard()
        raise ValueError(_rejection(source, rejected, strict=run.strict))
    assign = partial(_assigned, source, checked, base, run.settings.match)
    accepted = np.delete(np.arange(len(source)), list(problems))
    assignment = assign(accepted)
    duplicates: list[list[int]] = []
    if run.settings.dedupe is not None:
        duplicates = duplicate_groups(assignment)
    if run.settings.dedupe == "drop" and duplicates:
        stay, repeats = without_repeats(assignment, duplicates)
        problems = problems | {i: f"duplicate of {first}" for i, first in repeats.items()}
        rejected = [(source.keys[i], problems[i]) for i in sorted(problems)]
        assignment = assign(stay)
    return Split(
        name=name,
        source=source,
        base=base,
        checked=checked,
        assignment=assignment,
        rejected=rejected,
        duplicates=duplicates,
    )


def _assigned(
    source: Source, checked: Checked, base: Base | None, match: str, positions: NDArray[np.int64]
) -> Assignment:
    """Ids of the images at these positions of the source."""
    keys = [source.keys[i] for i in positions]
    found = assign_ids(keys, checked.verdicts["sha256"][positions], base=base, match=match)
    in_source = np.where(found.positions < 0, -1, positions[found.positions])
    return replace(found, positions=in_source)


def _rejection(source: Source, rejected: list[tuple[str, str]], *, strict: bool) -> str:
    shown = "; ".join(f"{one_line(key)}: {one_line(why)}" for key, why in rejected[:_SHOWN])
    more = f"; and {len(rejected) - _SHOWN} more" if len(rejected) > _SHOWN else ""
    remedy = "remove them or leave out --strict" if strict else "nothing is left to ingest"
    return (
        f"{len(rejected)} of {len(source)} images in {source.origin} were rejected "
        f"({shown}{more}); {remedy}"
    )
