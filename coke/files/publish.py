"""Publishing a folder: it is built beside its final name, and renamed when it is whole.

At the final name a reader finds the old folder, the new one, or none; never a part of one. The
finished work of an interrupted run stays in ``.OUT.partial`` beside OUT, and the next run of the
same command goes on with it::

    .OUT.partial/lock            held by the run at work; a dead run holds no lock
    .OUT.partial/PLAN/dataset    the folder that will be renamed to OUT, whatever its kind
    .OUT.partial/PLAN/journal    results of finished pieces of work
    .OUT.partial/PLAN/drafts     files that are being written
    .OUT.partial/PLAN/report     summary of the run; written just before the renaming
    .OUT.replaced                the old folder, while the new one takes its name
    .OUT.scratch/RUN             files that a run needs only while it works

Where OUT is the root of a mounted volume, all of this lies inside OUT:
:mod:`coke.files.inner_place`.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coke.files.inner_place import place_of
from coke.files.kind import Kind, check_free
from coke.files.lock import HeldError, LockFile
from coke.files.place import Place
from coke.files.workspace import Workspace, has_report, is_worth_keeping, plans, report_of_published


class Claim:
    """The right to write one folder; :func:`claimed` gives it."""

    def __init__(
        self, out: Path, place: Place, *, overwrite: bool, kind: Kind, console: Console
    ) -> None:
        self._out = out
        self._place = place
        self._kind = kind
        self._overwrite = overwrite
        self._console = console
        #: A folder for files that are needed only while this run works; it is not made here.
        self.scratch = place.scratch / uuid.uuid4().hex

    def finished(self, command: str) -> dict[str, Any] | None:
        """The report of an earlier run of the same command that died after publishing."""
        for plan in plans(self._place.partial):
            report = report_of_published(plan) if plan.name.startswith(f"{command}-") else None
            if report and report["manifests"] == self._kind.manifests(self._place.final):
                return report
        return None

    @contextmanager
    def workspace(self, command: str, base: str) -> Iterator[Workspace]:
        """The folders of one plan, with the finished work of an earlier run of the same plan.

        Args:
            command: fingerprint of the command: source and settings.
            base: fingerprint of the data set that the command builds upon.

        Raises:
            ValueError: OUT is taken, or the disk does not take the files.
        """
        check_free(self._out, overwrite=self._overwrite, kind=self._kind)
        folder = self._place.partial / f"{command}-{base}"
        for other in plans(self._place.partial):
            if other != folder:
                if is_worth_keeping(other):
                    self._console.print(
                        f"An unfinished run into {escape(str(self._out))} had another source, "
                        "other settings or another version of coke: its work is discarded"
                    )
                shutil.rmtree(other)
        try:
            yield Workspace(folder, self._place, self._kind)
        except OSError as error:
            hint = (
                "nothing was left behind. Free some space or choose another folder, then run again"
            )
            if is_worth_keeping(folder):
                hint = "free some space, then run the same command again: it continues"
            raise ValueError(
                f"cannot write {self._out}: {error.strerror or error}; {hint}"
            ) from error
        finally:
            if is_worth_keeping(folder):
                self._console.print(
                    f"What is finished is kept in {escape(str(folder.parent))}: the same command "
                    "continues there. Remove the folder to give up",
                    soft_wrap=True,
                )
            else:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def published(out: Path, *, overwrite: bool, kind: Kind) -> Iterator[Path]:
    """A new folder to fill; it becomes ``out`` at the end, or vanishes if anything goes wrong.

    It is for folders that take seconds to make: no work of an interrupted run is kept.

    Raises:
        ValueError: ``out`` is taken or being written, or the disk does not take the files.
    """
    quiet = Console(quiet=True)
    with (
        claimed(out, overwrite=overwrite, restart=True, kind=kind, console=quiet) as claim,
        claim.workspace("files", "") as work,
    ):
        yield work.dataset
        work.publish({})


@contextmanager
def claimed(
    out: Path, *, overwrite: bool, restart: bool = False, kind: Kind, console: Console
) -> Iterator[Claim]:
    """The sole right to write ``out``, after cleaning up after runs that were killed.

    Args:
        out: the final folder. It may exist when it is empty, or with ``overwrite``.
        overwrite: replace a folder of the same kind, and nothing else, that is there.
        restart: forget what an interrupted run has finished.
        kind: what is written.
        console: where notices go.

    Raises:
        ValueError: ``out`` is taken, or another run is writing it.
    """
    try:
        place = place_of(out)
        place.final.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(out, place, console)
    except OSError as error:
        raise ValueError(
            f"cannot write {out}: {error.strerror or error}; choose another folder"
        ) from error
    try:
        place.clean()
        if restart:
            for path in plans(place.partial):
                shutil.rmtree(path)
        if not any(map(has_report, plans(place.partial))):
            check_free(out, overwrite=overwrite, kind=kind)
        claim = Claim(out, place, overwrite=overwrite, kind=kind, console=console)
        try:
            yield claim
        finally:
            shutil.rmtree(claim.scratch, ignore_errors=True)
            with suppress(OSError):  # there is none, or another run has just begun there
                place.scratch.rmdir()
    finally:
        # Publishing has removed the folder; a folder of its name is then another run's.
        if lock.is_current() and not any(map(is_worth_keeping, plans(place.partial))):
            for path in plans(place.partial):
                shutil.rmtree(path, ignore_errors=True)
            lock.path.unlink(missing_ok=True)
            with suppress(OSError):  # another run has just begun there
                place.partial.rmdir()
        lock.close()


def _lock(out: Path, place: Place, console: Console) -> LockFile:
    try:
        lock = LockFile(place.partial / "lock")
    except HeldError as error:
        raise ValueError(
            f"{error} is writing {out} at this moment; wait for it, or choose another folder"
        ) from None
    if lock.without_locks:
        console.print(
            f"The file system of {escape(str(out))} has no locks: see to it that nothing else "
            "writes there"
        )
    return lock
