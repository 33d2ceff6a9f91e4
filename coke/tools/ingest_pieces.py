"""The pieces of work of an ingest: a run of images to check, a container to write.

Each is a pure function of its task, so any process or machine may do any piece, twice if it must
be. A piece whose result is in the journal is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import uuid
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coke.pipeline.containers import Candidate, ContainerPlan, WrittenContainer, write_container
from coke.pipeline.index import Container
from coke.pipeline.jpeg import Verdict, check, check_header
from coke.pipeline.sources import Source, key_problem
from coke.tools import journal

#: How the bytes of a container are written, by ``--format``.
WRITERS: dict[str, Callable[[ContainerPlan], WrittenContainer]] = {"wds": write_container}

#: How an image is looked at, by ``--check``.
CHECKS = {"decode": check, "header": check_header}


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """Images to check.

    Attributes:
        source: the images.
        check: which of :data:`CHECKS`.
        entry: the file that will hold the result.
        must_exist: what this machine needs to see.
    """

    source: Source
    check: str
    resize_shorter: int | None
    entry: Path
    must_exist: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the first pass found out about n images.

    Attributes:
        problems: (n,) why an image is left out; empty = accepted.
        heights, widths: (n,) uint16, of the stored image in pixels.
        as_is: (n,) bool, stored byte for byte.
        crc32: (n,) uint32, of the source file.
        contents: (n, 32) uint8, SHA-256 of the source file.
        bytes: how many were read.
        resumed: images whose verdict an earlier run had found.
    """

    problems: tuple[str, ...]
    heights: NDArray[np.uint16]
    widths: NDArray[np.uint16]
    as_is: NDArray[np.bool_]
    crc32: NDArray[np.uint32]
    contents: NDArray[np.uint8]
    bytes: int
    resumed: int

    def candidate(self, i: int) -> Candidate:
        """What is needed to store accepted image ``i``."""
        verdict = Verdict(
            height=int(self.heights[i]), width=int(self.widths[i]), as_is=bool(self.as_is[i])
        )
        return Candidate(verdict=verdict, crc32=int(self.crc32[i]))

    @staticmethod
    def joined(parts: Sequence[Checked]) -> Checked:
        """Verdicts of several runs of images as one."""
        return Checked(
            problems=tuple(problem for part in parts for problem in part.problems),
            heights=np.concatenate([part.heights for part in parts]),
            widths=np.concatenate([part.widths for part in parts]),
            as_is=np.concatenate([part.as_is for part in parts]),
            crc32=np.concatenate([part.crc32 for part in parts]),
            contents=np.concatenate([part.contents for part in parts]),
            bytes=sum(part.bytes for part in parts),
            resumed=sum(part.resumed for part in parts),
        )


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """A container to write.

    Attributes:
        plan: what goes into it; its folder is for drafts.
        format: which of :data:`WRITERS`.
        destination: the folder where the container gets its name when it is whole.
        entry: the file that will hold the result.
        must_exist: what this machine needs to see.
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


def check_images(task: CheckTask) -> Checked:
    """Looks at images; for each what is needed to store it, or the reason why it cannot be.

    Raises:
        ValueError: this machine does not see the files.
        OSError: the journal cannot be written.
    """
    _require(task.must_exist)
    made_from = _fingerprint_of_files(task.source)
    found = journal.load(task.entry, made_from)
    if found is not None:
        return Checked(
            problems=tuple(json.loads(journal.unpacked(found["problems"]))),
            heights=found["heights"].astype(np.uint16),
            widths=found["widths"].astype(np.uint16),
            as_is=found["as_is"].astype(np.bool_),
            crc32=found["crc32"].astype(np.uint32),
            contents=found["contents"].astype(np.uint8),
            bytes=int(found["bytes"]),
            resumed=len(task.source),
        )
    checked, transient = _check(task)
    if not transient:
        results: journal.Arrays = {
            "problems": journal.packed(json.dumps(checked.problems)),
            "heights": checked.heights,
            "widths": checked.widths,
            "as_is": checked.as_is,
            "crc32": checked.crc32,
            "contents": checked.contents,
            "bytes": np.array(checked.bytes),
        }
        journal.save(task.entry, made_from, results)
    return checked


def _check(task: CheckTask) -> tuple[Checked, bool]:
    """Verdicts, and whether some of them may be others next time: a file could not be read."""
    source, look = task.source, CHECKS[task.check]
    count, transient = len(source), False
    checked = Checked(
        problems=(),
        heights=np.zeros(count, np.uint16),
        widths=np.zeros(count, np.uint16),
        as_is=np.zeros(count, np.bool_),
        crc32=np.zeros(count, np.uint32),
        contents=np.zeros((count, 32), np.uint8),
        bytes=0,
        resumed=0,
    )
    problems, size = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's; an image is either accepted or rejected
        for i, key in enumerate(source.keys):
            problem = key_problem(key) or ""
            if not problem:
                try:
                    data = source.read(i)
                    size += len(data)
                    verdict = look(data, resize_shorter=task.resize_shorter)
                except OSError as error:
                    problem, transient = f"cannot be read: {error.strerror}", True
                except ValueError as error:
                    problem = str(error)
                else:
                    checked.heights[i], checked.widths[i] = verdict.height, verdict.width
                    checked.as_is[i] = verdict.as_is
                    checked.crc32[i] = zlib.crc32(data)
                    checked.contents[i] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            problems.append(problem)
    return replace(checked, problems=tuple(problems), bytes=size), transient


def write_piece(task: WriteTask) -> Written:
    """Writes one container under a draft's name, makes it last, and gives it its own.

    Raises:
        ValueError: an image changed since it was checked, or this machine does not see the files.
        OSError: the container cannot be written.
    """
    _require(task.must_exist)
    plan, made_from = task.plan, _fingerprint_of_plan(task)
    found = journal.load(task.entry, made_from)
    if found is not None:
        container = Container(**json.loads(journal.unpacked(found["container"])))
        if _has_size(task.destination / container.name, container.size):
            rows, crc32 = found["rows"], found["crc32"].astype(np.uint32)
            result = WrittenContainer(container=container, rows=rows.astype(np.void), crc32=crc32)
            return Written(result=result, resumed=True)
    # Another process may be at the same container: one that its master has given up on.
    drafts = plan.folder / f"{plan.number}-{uuid.uuid4().hex}"
    drafts.mkdir()
    try:
        written = WRITERS[task.format](replace(plan, folder=drafts))
        for path in sorted(drafts.iterdir()):
            journal.flush(path)
            path.rename(task.destination / path.name)
        journal.flush(task.destination)
        results: journal.Arrays = {
            "container": journal.packed(json.dumps(asdict(written.container))),
            "rows": written.rows,
            "crc32": written.crc32,
        }
        journal.save(task.entry, made_from, results)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    return Written(result=written, resumed=False)


def _require(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"{path} does not exist on {socket.gethostname()}: machines that share an ingest "
                "need a file system that all of them see under the same path"
            )


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _fingerprint_of_files(source: Source) -> str:
    """Changes when a file does: sizes and modification times, without reading anything.

    Candidates that are no files of their own go by the file they are kept in; of those behind a
    URL nothing is known.
    """
    stamps = hashlib.sha256()
    for i, key in enumerate(source.keys):
        stamps.update(os.fsencode(f"{key}\0{_stamp(source.describe(i)) or _stamp(source.origin)}"))
    return stamps.hexdigest()


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns}\0"


def _fingerprint_of_plan(task: WriteTask) -> str:
    """Changes when the container's bytes would."""
    plan = task.plan
    decisive = (
        (task.format, plan.number, plan.start, plan.stop, plan.resize_shorter, plan.quality),
        plan.ids,
        plan.records.keys,
        plan.records.labels,
        [(c.crc32, c.verdict.height, c.verdict.width, c.verdict.as_is) for c in plan.candidates],
    )
    return hashlib.sha256(repr(decisive).encode()).hexdigest()
