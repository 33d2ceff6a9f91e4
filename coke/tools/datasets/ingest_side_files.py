"""The files beside the containers of an ingest: index, manifest, and what was left out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from coke.pipeline.dataset.index import INDEX_DTYPE
from coke.pipeline.dataset.write_index import write_index
from coke.tools.datasets.dataset_kind import REJECTED
from coke.tools.datasets.duplicates import duplicates_table
from coke.tools.datasets.ingest_report import SplitReport, one_line, rejected_table
from coke.tools.datasets.ingest_split import IngestRun, Split
from coke.tools.datasets.ingest_writes import Written


def write_side_files(run: IngestRun, split: Split, written: list[Written]) -> SplitReport:
    """Writes the files beside the containers."""
    settings, source, assignment = run.settings, split.source, split.assignment
    folder = run.work.dataset / split.name
    results = [piece.result for piece in written]
    containers = [result.container for result in results]
    others = [(other.key, other.reason) for other in (*source.others, *source.label_files)]
    (folder / REJECTED).write_bytes(rejected_table(split.rejected + others))
    if settings.dedupe == "report":
        table = duplicates_table(assignment, split.duplicates, one_line)
        (folder / "duplicates.tsv").write_bytes(table)
    count, live = len(assignment.keys), assignment.live_ids
    rows, crc32 = np.zeros(count, dtype=INDEX_DTYPE), np.zeros(count, dtype=np.uint32)
    rows["label"] = -1  # of tombstones, whose other fields are zero but for the container's number
    for number, container in enumerate(containers):
        rows["container"][container.start : container.stop] = number
    rows[live] = np.concatenate([result.rows for result in results])
    crc32[live] = np.concatenate([result.crc32 for result in results])
    manifest = write_index(
        folder,
        rows=rows,
        crc32=crc32,
        keys=assignment.keys,
        classes=list(source.classes),
        containers=containers,
        rejected=len(split.rejected),
        settings={name: value for name, value in asdict(settings).items() if name != "format"},
        storage=settings.format,
        contents=assignment.contents,
        base="" if split.base is None else split.base.identity,
    )
    # An interrupted run may have seen files that have changed since, and made other containers.
    stems = {Path(container.name).stem for container in containers}
    for path in folder.glob("images-*"):
        if path.stem not in stems:
            path.unlink()
    return SplitReport(
        name=split.name,
        images=len(live),
        classes=len(source.classes),
        rejected=len(split.rejected),
        others=sum(other.files for other in source.others),
        label_files=sum(other.files for other in source.label_files),
        containers=len(written),
        bytes=sum(container.size for container in containers),
        kept=0 if split.base is None else int((live < len(split.base.keys)).sum()),
        tombstones=manifest.tombstones,
        turned=int(split.checked.verdicts["turned"][assignment.positions[live]].sum()),
        duplicates=sum(len(group) - 1 for group in split.duplicates),
    )
