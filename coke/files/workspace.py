"""The workspace of one plan: what a run writes before it is published.

A plan is a command and the data set that it builds upon. An interrupted run leaves its workspace
to the next run of the same plan.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from coke.files import durable
from coke.files.journal import SUFFIX
from coke.files.kind import Kind
from coke.files.place import Place

#: Names in a plan's folder: what gets the final name, and the report of what the run did.
_DATASET, _JOURNAL, _DRAFTS, _REPORT = "dataset", "journal", "drafts", "report"


class Workspace:
    """Where one folder is built.

    Attributes:
        dataset: what will get the final name, whatever its kind.
        journal: results of finished pieces of work.
        drafts: files that are being written; emptied here.
    """

    def __init__(self, folder: Path, place: Place, kind: Kind) -> None:
        self.dataset = folder / _DATASET
        self.journal = folder / _JOURNAL
        self.drafts = folder / _DRAFTS
        self._folder = folder
        self._place = place
        self._kind = kind
        shutil.rmtree(self.drafts, ignore_errors=True)
        for path in (self.dataset, self.journal, self.drafts):
            path.mkdir(parents=True, exist_ok=True)

    def discard(self) -> None:
        """Removes all work, which would not help another run."""
        shutil.rmtree(self._folder)

    def publish(self, report: dict[str, Any]) -> None:
        """Gives :attr:`dataset` the final name.

        Args:
            report: summary of the run. If this process is killed after the renaming, the next run
                of the same command shows it.

        Raises:
            OSError: the disk refuses.
        """
        for path in (*self.dataset.rglob("*"), self.dataset):
            if not path.is_symlink():  # the file behind a link is not ours
                durable.flush(path)
        about = {**report, "manifests": self._kind.manifests(self.dataset)}
        durable.write_json(self._folder / _REPORT, about)
        self._place.put(self.dataset)
        # A run killed before this has left the report: the same command finds it and is done.
        self._place.remove_partial()


def plans(partial: Path) -> list[Path]:
    """The folders of all plans in a ``.OUT.partial``."""
    return [path for path in sorted(partial.iterdir()) if path.is_dir()] if partial.exists() else []


def is_worth_keeping(plan: Path) -> bool:
    """Whether any piece of a plan's work is finished."""
    return (plan / _DATASET).exists() and any(
        path.is_file() for path in (plan / _JOURNAL).rglob(f"*{SUFFIX}")
    )


def has_report(plan: Path) -> bool:
    """Whether a plan's run has come to the renaming."""
    return (plan / _REPORT).exists()


def report_of_published(plan: Path) -> dict[str, Any] | None:
    """The report of a run that renamed what it built, and died before its plan was removed."""
    if (plan / _DATASET).exists():
        return None
    try:
        report: dict[str, Any] = json.loads((plan / _REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # no report, or a power cut has taken its bytes
        return None
    return report
