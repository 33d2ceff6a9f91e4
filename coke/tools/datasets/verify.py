"""`coke verify`: does a data set still hold the images that were ingested?

Hashes find any damage. The other checks say which records are damaged. Nothing here may fail on
damaged files: a file that cannot be read is a problem to list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from coke.distributed.workers import default_workers
from coke.files.kind import entries
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.pipeline.remote.cache_dir import cache_folder
from coke.pipeline.remote.remote import location
from coke.tools.datasets.parts import find_parts
from coke.tools.datasets.verify_containers import Job, container_problems
from coke.tools.datasets.verify_index import (
    SHOWN,
    checksums_of,
    file_problems,
    keys_of,
    range_problems,
    tombstone_problems,
)
from coke.tools.datasets.verify_remote import RemoteCopy


def verify(
    folder: str | Path,
    *,
    decode: int | Literal["all"] = 200,
    cache_dir: str | Path | None = None,
    console: Console | None = None,
) -> list[str]:
    """Checks a data set, or every data set in a folder of splits.

    Args:
        folder: what `coke ingest` made, or its URL. Of a remote data set, a container per core is
            copied to the local disk at a time.
        decode: number of images to decode, spread evenly over the ids; or ``"all"``.
        cache_dir: where these copies are kept; the cache of remote data sets when None.
        console: receives progress and findings.

    Returns:
        One line per problem, which names a record by container, offset, id and key. Empty if the
        data set is sound.

    Raises:
        ValueError: ``folder`` does not exist, there is no data set at the URL or no folder for a
            copy of it, or ``decode`` is no number of images.
    """
    place = location(folder)
    if isinstance(place, Path) and not place.is_dir():
        raise ValueError(f"data set {place} does not exist; give a folder `coke ingest` made")
    if (isinstance(decode, str) and decode != "all") or (
        not isinstance(decode, str) and decode < 0
    ):
        raise ValueError(f"decode is {decode!r}; give a number of images, or 'all'")
    console = console or Console(soft_wrap=True)
    problems: list[str] = []
    parts = find_parts(place)
    if isinstance(place, str):
        cache_folder(cache_dir)  # a folder that is missing here is no problem of the data set
        if not parts:
            find_split(place, ("train",))  # raises: there is none
    for part in parts or [place]:
        problems += _problems(part, decode, cache_dir, console)
    for problem in problems:
        console.print(problem, markup=False, highlight=False)
    verdict = f"{len(problems)} problems" if problems else "sound: every hash and record agrees"
    console.print(f"{place}: {verdict}", markup=False, highlight=False)
    return problems


@contextmanager
def _local(part: str | Path, cache_dir: str | Path | None) -> Iterator[RemoteCopy | Path]:
    """A data set's folder; of a remote data set a copy, which is removed afterwards."""
    if isinstance(part, Path):
        yield part
        return
    with tempfile.TemporaryDirectory(prefix="verify-", dir=cache_folder(cache_dir)) as folder:
        try:
            yield RemoteCopy(part, Path(folder))
        except ValueError as error:
            raise ValueError(str(error).replace(folder, part)) from error


def _problems(
    part: str | Path, decode: int | Literal["all"], cache_dir: str | Path | None, console: Console
) -> list[str]:
    try:
        with _local(part, cache_dir) as found:
            if isinstance(found, Path):
                return _verify_dataset(found, decode, console)
            problems = _verify_dataset(found.folder, decode, console, found)
            return [problem.replace(str(found.folder), found.url) for problem in problems]
    except Exception as error:
        return [f"{part}: cannot be checked further ({type(error).__name__}: {error})"]


def _verify_dataset(
    folder: Path, decode: int | Literal["all"], console: Console, copy: RemoteCopy | None = None
) -> list[str]:
    try:
        index = ImageIndex(folder)
    except Exception as error:
        return [str(error)]
    n, manifest = len(index), index.manifest
    others = [path.name for path in entries(folder)] if copy is None else copy.others()
    problems = list(file_problems(index, sorted(others)))
    keys = keys_of(index)
    if len(keys) != n:
        problems.append(f"{folder / 'keys.txt'}: {len(keys)} keys for {n} ids")
        keys += ["?"] * (n - len(keys))
    crc32 = checksums_of(folder / "checksums.npy", n)
    chosen = np.zeros(n, dtype=np.bool_)
    if decode == "all":
        chosen[:] = True
    elif n:
        chosen[np.linspace(0, n - 1, min(decode, n)).round().astype(np.int64)] = True
    problems += range_problems(index)
    problems += tombstone_problems(index, keys, crc32)
    names_by_hash = {container.sha256: container.name for container in manifest.containers}
    jobs = [
        Job(
            index=index,
            keys=keys,
            crc32=crc32,
            number=number,
            decode=chosen,
            names_by_hash=names_by_hash,
        )
        for number in range(len(manifest.containers))
    ]
    # Threads suffice: hashing and decoding release the interpreter lock.
    pool = ThreadPoolExecutor(default_workers())
    try:
        checked = pool.map(partial(_check_container, copy=copy), jobs)
        title = f"verifying {(folder.name if copy is None else copy.url)}"
        for found in track(checked, title, len(jobs), console=console, transient=True):
            problems += found[:SHOWN]
            if len(found) > SHOWN:
                where = found[0].partition(": ")[0]
                problems.append(f"{where}: {len(found) - SHOWN} more problems")
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C need not wait for the rest
    return problems


def _check_container(job: Job, copy: RemoteCopy | None) -> list[str]:
    container = job.index.manifest.containers[job.number]
    path = job.index.folder / container.name
    try:
        with nullcontext() if copy is None else copy.holding(container):
            if not path.is_file():
                return [f"{path}: missing, and with it ids {container.start}..{container.stop - 1}"]
            return list(container_problems(job, container, path))
    except Exception as error:
        return [f"{path}: cannot be checked further ({type(error).__name__}: {error})"]
