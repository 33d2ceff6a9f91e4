"""The first pass of an ingest: a verdict on every image, in pieces, on all workers."""

from __future__ import annotations

from pathlib import Path

from coke.files.journal import SUFFIX
from coke.pipeline.sources import Source
from coke.pipeline.sources.keys import to_system
from coke.tools.datasets.ingest_checks import Checked, CheckTask, check_images
from coke.tools.datasets.ingest_report import PassProgress
from coke.tools.datasets.ingest_split import IngestRun

_PIECE_MIN, _PIECE_MAX, _PIECES = 16, 2048, 256  # images that are checked as one piece, pieces


def checked_images(run: IngestRun, name: str, source: Source) -> Checked:
    """The first pass: verdicts on all images."""
    settings = run.settings
    count = min(_PIECE_MAX, max(_PIECE_MIN, len(source) // _PIECES))
    firsts = range(0, len(source), count)
    # Each machine must see the source's folder: one that does not would reject all its images.
    seen = tuple(path for path in [Path(to_system(source.origin))] if path.exists())
    tasks = (
        CheckTask(
            source=source.take(range(first, min(first + count, len(source)))),
            check=settings.check,
            # A file that is stored byte for byte can be hashed later from its container. Hashing
            # costs a fifth of the time if nothing is decoded, and next to none beside decoding.
            hash_all=settings.check == "decode"
            or settings.match == "content"
            or settings.dedupe is not None,
            settings=settings.storage,
            entry=run.work.journal / name / f"checked-{number:06d}{SUFFIX}",
            must_exist=(run.work.journal, *seen),
        )
        for number, first in enumerate(firsts)
    )
    progress = PassProgress(run.progress, f"checking {name}", len(source))
    parts, unanswered = [], 0
    for part in run.map(check_images, tasks):
        parts.append(part)
        progress.advance(len(part.verdicts), part.bytes, resumed=part.resumed > 0)
        unanswered += part.unanswered
        if 2 * unanswered > len(source):
            raise ValueError(_no_answers(source, Checked.joined(parts)))
    return Checked.joined(parts)


def _no_answers(source: Source, checked: Checked) -> str:
    """Dead links are rejected one by one; a network that is down must not empty a data set."""
    first = checked.unread[0]
    why = checked.problems[first].removeprefix("cannot be read: ")
    return (
        f"no answer for {checked.unanswered:,} of the {len(source):,} images of {source.origin}, "
        f"more than half of them (first: {source.describe(first)}: {why}); run the same command "
        "again when the servers answer, or remove their lines"
    )
