"""Speed of `coke ingest` beside GNU tar on the same files.

    COKE_TEST_DATA=FOLDER python benchmarks/ingest.py [--copies 24] [--rounds 5] [--save]

Makes a tree of ImageNet JPEGs (``imagenet-sample.tar``, 500 images, so many times over) and times,
in turns within one run:

- tar: ``tar cf``, one sequential copy of all files with a header each;
- tar, then sync: the same until the bytes are on the disk, which is when ingest calls them written;
- coke, header: ``coke ingest --check header``: two readings of each file, SHA-256 of each file and
  of each container, CRC-32 of each image, index, fsync of everything;
- coke, decode: the default, which also decodes every image (on a part of the tree, for it is slow).

Warm: files are in the page cache, read once before the first round. Cold (``--cold``): they are
dropped from it before each measurement (``posix_fadvise``; the disk's own caches stay). Ingest runs
as a library call, so that importing Python is not in it; starting the workers is. Reports the
median over the rounds and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coke.distributed.workers import default_workers
from coke.tools.datasets.ingest import ingest

QUIET = Console(quiet=True)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def warm(files: list[Path]) -> None:
    """Reads files, so that they are in the page cache."""
    for path in files:
        path.read_bytes()


def cool(files: list[Path]) -> None:
    """Drops files from the page cache; they must be on the disk for that."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_tar(source: Path, out: Path, *, sync: bool) -> None:
    subprocess.run(["tar", "cf", str(out), "-C", str(source), "."], check=True)
    if sync:
        subprocess.run(["sync", str(out)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=24, help="of the 500 images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    data = os.environ.get("COKE_TEST_DATA")
    if not data:
        raise SystemExit("set COKE_TEST_DATA to the folder that holds imagenet-sample.tar")
    console = Console(record=True, width=100)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        tree, part, out = (Path(scratch) / name for name in ("tree", "part", "out"))
        for copy in range(options.copies):
            with tarfile.open(Path(data) / "imagenet-sample.tar") as tar:
                tar.extractall(tree / f"{copy:03d}", filter="data")
        part.mkdir()
        (tree / "000").rename(part / "000")
        os.sync()
        everything, some = files_below(tree), files_below(part)
        contenders: dict[str, tuple[list[Path], Callable[[], object]]] = {
            "tar": (everything, lambda: run_tar(tree, out, sync=False)),
            "tar, then sync": (everything, lambda: run_tar(tree, out, sync=True)),
            "coke, header": (
                everything,
                lambda: ingest(tree, out, check="header", workers=options.workers, console=QUIET),
            ),
            "coke, decode": (
                some,
                lambda: ingest(part, out, workers=options.workers, console=QUIET),
            ),
        }
        prepare = cool if options.cold else warm
        prepare(everything + some)
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, (files, work) in contenders.items():
                if options.cold:
                    cool(files)
                taken[name].append(seconds(work))
                out.unlink() if out.is_file() else shutil.rmtree(out)
                os.sync()  # what one contender has written is not the next one's to wait for
        sizes = {
            name: (len(files), sum(path.stat().st_size for path in files))
            for name, (files, _) in contenders.items()
        }
    rates = {name: sizes[name][0] / statistics.median(times) for name, times in taken.items()}
    state = "cold: not in the page cache" if options.cold else "warm: in the page cache"
    table = Table(
        title=f"{len(everything):,} JPEGs, {sizes['tar'][1] / 1e9:.2f} GB, {state}; "
        f"{options.workers} workers, {options.rounds} rounds"
    )
    for column in ("", "images/s (median)", "range", "MB/s", "this / tar", "this / tar, then sync"):
        table.add_column(column, justify="left" if not column else "right")
    for name, times in taken.items():
        count, size = sizes[name]
        table.add_row(
            name,
            f"{rates[name]:,.0f}",
            f"{count / max(times):,.0f}-{count / min(times):,.0f}",
            f"{rates[name] * size / count / 1e6:,.0f}",
            f"{rates[name] / rates['tar']:.2f}",
            f"{rates[name] / rates['tar, then sync']:.2f}",
        )
    console.print(table)
    if options.save:
        results = Path(__file__).parent / "results"
        suffix = "-cold" if options.cold else ""
        name = f"ingest-{date.today().isoformat()}{suffix}.txt"
        (results / name).write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
