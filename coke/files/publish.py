"""Publishing a folder: built beside its final name, renamed there when it is whole.

A data set, or another :class:`Kind` of result. Whoever opens the final name sees the old one, or
the new one, or nothing; never a part. What an interrupted run has finished stays in
``.OUT.partial`` beside OUT, for the next run of the same command::

    .OUT.partial/lock            held by the run at work; a dead run holds nothing
    .OUT.partial/PLAN/dataset    what will be renamed to OUT, whatever its kind
    .OUT.partial/PLAN/journal    results of finished pieces of work
    .OUT.partial/PLAN/drafts     files that are being written
    .OUT.partial/PLAN/report     what the run did; written just before the renaming
    .OUT.replaced                the old data set, while the new one takes its name
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coke.files.journal import SUFFIX, flush
from coke.pipeline.dataset.index import FORMAT_NAME, file_sha256, is_dataset

_OURS = re.compile(
    r"manifest\.json|(index|checksums|contents)\.npy|keys\.txt|(rejected|duplicates)\.tsv"
    r"|images-\d+\.\w+"
)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of folder that is published.

    Attributes:
        name: for messages.
        foreign: something in a folder that is no part of such a result, so that ``--overwrite``
            must not touch it; None when all of it is.
    """

    name: str
    foreign: Callable[[Path], Path | None]


def kind_of_files(name: str, *, marker: str, says: str, files: frozenset[str]) -> Kind:
    """A kind of folder that holds these files only, ``marker`` among them, which says ``says``."""

    def foreign(folder: Path) -> Path | None:
        found = sorted(folder.iterdir())
        about = folder / marker
        if not about.is_file() or says.encode() not in about.read_bytes():
            return found[0]
        return next((path for path in found if path.name not in files or path.is_dir()), None)

    return Kind(name=name, foreign=foreign)


class Claim:
    """The right to write one folder; :func:`claimed` gives it."""

    def __init__(self, out: Path, *, overwrite: bool, kind: Kind, console: Console) -> None:
        self.out = out
        self._kind = kind
        self._overwrite = overwrite
        self._console = console
        self._final = out.resolve()
        self.partial = self._final.parent / f".{self._final.name}.partial"

    def finished(self, command: str) -> dict[str, Any] | None:
        """The report of an earlier run of the same command that died after publishing."""
        for path in self.partial.glob(f"{command}-*/report"):
            if (path.parent / "dataset").exists():
                continue
            try:
                report: dict[str, Any] = json.loads(path.read_text())
            except ValueError:  # a power cut has taken its bytes
                continue
            if report["manifests"] == manifest_hashes(self._final):
                return report
        return None

    @contextmanager
    def workspace(self, command: str, base: str) -> Iterator[Workspace]:
        """The folders of one plan, with what an earlier run of it has finished.

        Args:
            command: fingerprint of what is asked for.
            base: fingerprint of the data set that it builds upon.

        Raises:
            ValueError: OUT is taken, or the disk does not take the files.
        """
        check_free(self.out, overwrite=self._overwrite, kind=self._kind)
        folder = self.partial / f"{command}-{base}"
        for other in _plans(self.partial):
            if other != folder:
                if _is_worth_keeping(other):
                    self._console.print(
                        f"An unfinished run into {escape(str(self.out))} had another source, "
                        "other settings or another version of coke: its work is discarded"
                    )
                shutil.rmtree(other)
        try:
            yield Workspace(folder, self._final)
        except OSError as error:
            hint = (
                "nothing was left behind. Free some space or choose another folder, then run again"
            )
            if _is_worth_keeping(folder):
                hint = "free some space, then run the same command again: it continues"
            raise ValueError(
                f"cannot write {self.out}: {error.strerror or error}; {hint}"
            ) from error
        finally:
            if _is_worth_keeping(folder):
                self._console.print(
                    f"What is finished is kept in {escape(str(folder.parent))}: the same command "
                    "continues there. Remove the folder to give up",
                    soft_wrap=True,
                )
            else:
                shutil.rmtree(folder, ignore_errors=True)


class Workspace:
    """Where one data set is built."""

    def __init__(self, folder: Path, final: Path) -> None:
        self.dataset = folder / "dataset"
        self.journal = folder / "journal"
        self.drafts = folder / "drafts"
        self._folder = folder
        self._final = final
        shutil.rmtree(self.drafts, ignore_errors=True)
        for path in (self.dataset, self.journal, self.drafts):
            path.mkdir(parents=True, exist_ok=True)

    def discard(self) -> None:
        """Forgets all work: it would not help another run."""
        shutil.rmtree(self._folder)

    def publish(self, report: dict[str, Any]) -> None:
        """Renames the data set to OUT; ``report`` is for a run that finds this one dead.

        Raises:
            OSError: the disk refuses.
        """
        for path in (*self.dataset.rglob("*"), self.dataset):
            if not path.is_symlink():  # to a file that is not ours, by its place from ``out``
                flush(path)
        about = {**report, "manifests": manifest_hashes(self.dataset)}
        draft = self._folder / "report.draft"
        draft.write_text(json.dumps(about))
        draft.rename(self._folder / "report")
        aside = _aside(self._final)
        if self._final.exists():
            self._final.rename(aside)
        try:
            self.dataset.rename(self._final)
        except BaseException:
            if aside.exists():
                aside.rename(self._final)
            raise
        flush(self._final.parent)
        shutil.rmtree(aside, ignore_errors=True)
        # All at once: as long as the report is there, the same command knows that it is done.
        partial, done = self._folder.parent, _done(self._final)
        shutil.rmtree(done, ignore_errors=True)
        partial.rename(done)
        shutil.rmtree(done, ignore_errors=True)


@contextmanager
def published(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder to fill; it becomes ``out`` at the end, or vanishes if anything goes wrong.

    For data sets that are made in moments: nothing of an interrupted run is kept.

    Raises:
        ValueError: ``out`` is taken, being written, or the disk does not take the files.
    """
    with (
        claimed(out, overwrite=overwrite, restart=True, console=Console(quiet=True)) as claim,
        claim.workspace("files", "") as work,
    ):
        yield work.dataset
        work.publish({})


@contextmanager
def claimed(
    out: Path,
    *,
    overwrite: bool,
    restart: bool = False,
    kind: Kind | None = None,
    console: Console,
) -> Iterator[Claim]:
    """The sole right to write ``out``, after cleaning up after runs that were killed.

    Args:
        out: the final folder. It may exist when it is empty, or with ``overwrite``.
        overwrite: replace a data set (or what ``kind`` is; nothing else) that is there.
        restart: forget what an interrupted run has finished.
        kind: what is written; a data set when None.

    Raises:
        ValueError: ``out`` is taken, or another run is writing it.
    """
    kind = kind or DATASET
    claim = Claim(out, overwrite=overwrite, kind=kind, console=console)
    partial, final = claim.partial, out.resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(out, partial, console)
    except OSError as error:
        raise ValueError(
            f"cannot write {out}: {error.strerror or error}; choose another folder"
        ) from error
    try:
        _bring_back(final)
        shutil.rmtree(_done(final), ignore_errors=True)
        if restart:
            for path in _plans(partial):
                shutil.rmtree(path)
        if not any((path / "report").exists() for path in _plans(partial)):
            check_free(out, overwrite=overwrite, kind=kind)
        yield claim
    finally:
        # After publishing the folder is gone; one that is there now is another run's.
        if _is_current(lock, partial) and not any(map(_is_worth_keeping, _plans(partial))):
            for path in _plans(partial):
                shutil.rmtree(path, ignore_errors=True)
            (partial / "lock").unlink(missing_ok=True)
            with suppress(OSError):  # another run has just begun there
                partial.rmdir()
        os.close(lock)


def check_free(out: Path, *, overwrite: bool, kind: Kind | None = None) -> None:
    """Raises ValueError when ``out`` must not be written."""
    kind = kind or DATASET
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the {kind.name}")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"{out} exists and is not empty; add --overwrite to replace it, or choose another "
            "folder"
        )
    if foreign := kind.foreign(out):
        raise ValueError(
            f"{out} holds {foreign}, which is no part of a coke {kind.name}, so --overwrite does "
            "not touch it; choose another folder, or remove it yourself"
        )


def manifest_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the manifest of each split in a folder: they stand for all other files."""
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted((*folder.glob("manifest.json"), *folder.glob("*/manifest.json")))
    }


def is_dataset_file(name: str) -> bool:
    """Whether `coke ingest` writes a file of this name, in a data set or in a split of one."""
    folder, _, file = name.rpartition("/")
    return "/" not in folder and _OURS.fullmatch(file) is not None


def _foreign(folder: Path) -> Path | None:
    """Something in a folder that `coke ingest` did not write; None when all of it is ours."""
    for path in sorted(folder.iterdir()):
        if _is_ours(folder):
            if not _OURS.fullmatch(path.name) or path.is_dir():
                return path
        elif not _is_ours(path):
            return path
        elif foreign := _foreign(path):
            return foreign
    return None


DATASET = Kind(name="data set", foreign=_foreign)


def _is_ours(folder: Path) -> bool:
    # The manifest may be damaged beyond parsing: replacing such a data set is the remedy.
    return is_dataset(folder) and FORMAT_NAME.encode() in (folder / "manifest.json").read_bytes()


def _lock(out: Path, partial: Path, console: Console) -> int:
    """Descriptor of the lock, which the kernel takes back when this process ends in any way."""
    while True:
        partial.mkdir(exist_ok=True)
        try:
            descriptor = os.open(partial / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the run that made the folder has just removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ValueError(
                f"{holder} is writing {out} at this moment; wait for it, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            console.print(
                f"The file system of {escape(str(out))} has no locks: see to it that nothing else "
                "writes there"
            )
        if _is_current(descriptor, partial):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)  # of a file that its holder has removed since


def _is_current(lock: int, partial: Path) -> bool:
    """Whether this is the lock of the folder that has the name now."""
    try:
        return os.stat(partial / "lock").st_ino == os.fstat(lock).st_ino
    except FileNotFoundError:
        return False


def _bring_back(final: Path) -> None:
    """Gives the old data set its name back, if a run died between the two renamings."""
    aside = _aside(final)
    if not aside.exists():
        return
    if final.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(final)


def _aside(final: Path) -> Path:
    return final.parent / f".{final.name}.replaced"


def _done(final: Path) -> Path:
    """What was needed to make a data set that is whole: to be removed."""
    return final.parent / f".{final.name}.done"


def _plans(partial: Path) -> list[Path]:
    return [path for path in sorted(partial.iterdir()) if path.is_dir()] if partial.exists() else []


def _is_worth_keeping(plan: Path) -> bool:
    """Whether any piece of its work is finished."""
    journal = plan / "journal"
    return (plan / "dataset").exists() and any(p.is_file() for p in journal.rglob(f"*{SUFFIX}"))
