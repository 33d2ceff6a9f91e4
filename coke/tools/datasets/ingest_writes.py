"""The second pass of an ingest: a container is written, a piece of work each.

A piece is a pure function of its task, so any process or machine may do it, twice if it must be. A
piece whose result is in the journal is not done again.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from coke.files import durable, journal
from coke.pipeline.containers.formats import CONTAINER_WRITERS
from coke.pipeline.containers.plan import ContainerPlan, WrittenContainer
from coke.pipeline.dataset.index import INDEX_DTYPE
from coke.pipeline.dataset.manifest import Container
from coke.tools.datasets.ingest_checks import require_seen

_RECORD_DTYPE = np.dtype([("row", INDEX_DTYPE), ("crc32", "<u4")])


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """A container to write.

    Attributes:
        plan: what goes into it; its folder is for drafts.
        format: which of :data:`CONTAINER_WRITERS`.
        destination: the folder where the container gets its name when it is whole.
        entry: the file that will hold the result.
        must_exist: paths that this machine must see.
    """

    plan: ContainerPlan
    format: str
    destination: Path
    entry: Path
    must_exist: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A container at its destination, and whether an earlier run had put it there."""

    result: WrittenContainer
    resumed: bool


def write_piece(task: WriteTask) -> Written:
    """Writes one container under a draft's name, makes it last, and gives it its own.

    Raises:
        ValueError: an image changed since it was checked, or this machine does not see the files.
        OSError: the container cannot be written.
    """
    require_seen(task.must_exist)
    plan, made_from = task.plan, _fingerprint(task)
    found = journal.load(task.entry, made_from)
    if found is not None:
        about, records = found
        container = Container(**about)
        if _has_size(task.destination / container.name, container.size):
            # Columns of a table have the table's stride; what was written is compact.
            rows, crc32 = (np.ascontiguousarray(records[name]) for name in ("row", "crc32"))
            result = WrittenContainer(container=container, rows=rows, crc32=crc32)
            return Written(result=result, resumed=True)
    # Another process may be at the same container: one that its master has given up on.
    drafts = plan.folder / f"{plan.number}-{uuid.uuid4().hex}"
    drafts.mkdir()
    try:
        written = CONTAINER_WRITERS[task.format](replace(plan, folder=drafts))
        durable.move_into(task.destination, sorted(drafts.iterdir()))
        records = np.zeros(len(written.rows), _RECORD_DTYPE)
        records["row"], records["crc32"] = written.rows, written.crc32
        journal.save(task.entry, made_from, asdict(written.container), records)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    return Written(result=written, resumed=False)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _fingerprint(task: WriteTask) -> str:
    """Changes when the container's bytes would."""
    plan = task.plan
    decisive = (
        (task.format, plan.number, plan.start, plan.stop, plan.settings),
        plan.ids,
        plan.records.keys,
        plan.records.labels,
        [(c.crc32, c.verdict.height, c.verdict.width, c.verdict.as_is) for c in plan.candidates],
    )
    return hashlib.sha256(repr(decisive).encode()).hexdigest()
