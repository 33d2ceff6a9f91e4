"""Publishing a data set: built beside its final name, renamed there when it is whole.

Whoever opens the final name sees the old data set, or the new one, or nothing; never a part.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coke.pipeline.index import FORMAT_NAME, is_dataset

_OURS = re.compile(
    r"manifest\.json|index\.npy|checksums\.npy|keys\.txt|rejected\.tsv|images-\d+\.(tar|idx|beton)"
)


@contextmanager
def published(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder to fill; it becomes ``out`` at the end, or vanishes if anything goes wrong.

    Args:
        out: the final folder. It may exist when it is empty, or with ``overwrite``.
        overwrite: replace a data set (and nothing else) that is there.

    Raises:
        ValueError: ``out`` is taken, or the disk does not take the files.
    """
    final = out.resolve()
    partial = final.parent / f".{final.name}.partial-{os.getpid()}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_after_the_dead(final)
        check_free(out, overwrite=overwrite)
        partial.mkdir()
        yield partial
        _flush(partial)
        _swap_in(partial, final)
    except OSError as error:
        raise ValueError(
            f"cannot write {out}: {error.strerror or error}; nothing was left behind. "
            "Free some space or choose another folder, then run again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raises ValueError when ``out`` must not be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder for the data set")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"{out} exists and is not empty; add --overwrite to replace it, or choose another "
            "folder"
        )
    if foreign := _foreign(out):
        raise ValueError(
            f"{out} holds {foreign}, which is no part of a coke data set, so --overwrite does not "
            "touch it; choose another folder, or remove it yourself"
        )


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


def _is_ours(folder: Path) -> bool:
    # The manifest may be damaged beyond parsing: replacing such a data set is the remedy.
    return is_dataset(folder) and FORMAT_NAME.encode() in (folder / "manifest.json").read_bytes()


def _clean_up_after_the_dead(final: Path) -> None:
    """Removes what runs left that were killed; brings back a data set they had moved aside."""
    for kind in ("replaced", "partial"):
        for path in final.parent.glob(f".{glob.escape(final.name)}.{kind}-*"):
            pid = path.name.rpartition("-")[2]
            if not pid.isdigit() or (int(pid) != os.getpid() and _is_alive(int(pid))):
                continue
            if kind == "replaced" and not final.exists():
                path.rename(final)
            else:
                shutil.rmtree(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, as another user's
        return True
    return True


def _flush(folder: Path) -> None:
    """Makes files survive a power cut before their final name promises that they are there."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap_in(partial: Path, final: Path) -> None:
    aside = final.parent / f".{final.name}.replaced-{os.getpid()}"
    if final.exists():
        final.rename(aside)
    try:
        partial.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
