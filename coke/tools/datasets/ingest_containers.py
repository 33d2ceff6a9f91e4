"""The second pass of an ingest: containers are planned, and written."""

from __future__ import annotations

from collections.abc import Iterator

from coke.files.journal import SUFFIX
from coke.pipeline.containers.plan import ContainerPlan
from coke.tools.datasets.ingest_report import PassProgress
from coke.tools.datasets.ingest_split import IngestRun, Split
from coke.tools.datasets.ingest_writes import WriteTask, Written, write_piece


def container_plans(run: IngestRun, split: Split) -> Iterator[ContainerPlan]:
    """Containers of ``shard_size`` images each; together they answer for all ids.

    A tombstone belongs to the container of the next image; those behind the last one to the last.
    """
    settings, assignment = run.settings, split.assignment
    live = assignment.live_ids
    start, size = 0, settings.shard_size or len(live)
    for number, first in enumerate(range(0, len(live), size)):
        ids = live[first : first + size].tolist()
        is_last = first + len(ids) == len(live)
        stop = len(assignment.keys) if is_last else ids[-1] + 1
        positions = assignment.positions[ids].tolist()
        yield ContainerPlan(
            folder=run.work.drafts,
            number=number,
            start=start,
            stop=stop,
            ids=tuple(ids),
            records=split.source.take(positions),
            candidates=tuple(split.checked.candidate(i) for i in positions),
            settings=settings.storage,
        )
        start = stop


def write_containers(run: IngestRun, split: Split) -> list[Written]:
    """The second pass: all containers, at their places."""
    tasks = (
        WriteTask(
            plan=plan,
            format=run.settings.format,
            destination=run.work.dataset / split.name,
            entry=run.work.journal / split.name / f"written-{plan.number:06d}{SUFFIX}",
            must_exist=(run.work.journal,),
        )
        for plan in container_plans(run, split)
    )
    total = len(split.assignment.live_ids)
    progress = PassProgress(run.progress, f"writing {split.name}", total)
    written = []
    for piece in run.map(write_piece, tasks):
        written.append(piece)
        result = piece.result
        progress.advance(len(result.rows), result.container.size, resumed=piece.resumed)
    return written
