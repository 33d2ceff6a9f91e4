"""What opening a data set costs: time and private memory per rank; and reading bytes by id.

    python benchmarks/opening.py [--rounds 5] [--ranks 2] [--save]

Synthetic data sets in a temporary folder, as sparse files: index, keys and containers are as large
as they would be, and take no room on the disk. Several processes, the ranks of a host, open one at
the same time, a round after the other. Measured in each:

- opening: index and reader (which looks at every container), an order, and the first batch's ids;
- private memory: what opening and a thousand random index rows add to the pages that the process
  shares with no other (``/proc/self/smaps_rollup``). The index itself is mapped: its pages belong
  to all ranks together;
- records: bytes by id without decoding, in batches of 256 of the global order, one thread; of
  records of 1 KB that are in memory, so that it is the reader's own cost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from datetime import date
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from coke.pipeline.dataset.index import INDEX_DTYPE, ImageIndex
from coke.pipeline.dataset.manifest import FORMAT_NAME, FORMAT_VERSION, Container, Manifest
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.order.order import epoch_order

#: Data sets: images, images per container, bytes per record.
SIZES = [
    (1_281_167, 2000, 110_000),
    (100_000_000, 156_007, 110_000),
    (100_000_000, 20_000, 110_000),
    (100_000_000, 2000, 110_000),
]
READ = (200_000, 2000, 1024)
BATCH = 256


def make(folder: Path, images: int, per_container: int, length: int) -> None:
    """A data set of zeros. An index of 2.5 GB stays sparse: all of its rows are tombstones."""
    folder.mkdir()
    containers = []
    for number, start in enumerate(range(0, images, per_container)):
        stop = min(start + per_container, images)
        name = f"images-{number:05d}.tar"
        size = (stop - start) * length
        with (folder / name).open("wb") as file:
            file.truncate(size)
        containers.append(Container(name=name, size=size, sha256="0" * 64, start=start, stop=stop))
    rows = np.lib.format.open_memmap(
        folder / "index.npy", mode="w+", dtype=INDEX_DTYPE, shape=(images,)
    )
    if images <= SIZES[0][0]:
        ids = np.arange(images)
        rows["container"] = ids // per_container
        rows["offset"] = ids % per_container * length
        rows["length"] = length
    del rows
    manifest = Manifest(
        format=FORMAT_NAME,
        version=FORMAT_VERSION,
        storage="wds",
        count=images,
        rejected=0,
        classes=[f"n{c:08d}" for c in range(1000)],
        keys_sha256="",
        index_sha256="",
        checksums_sha256="",
        settings={},
        containers=containers,
        tombstones=0,
        contents_sha256="",
        base="",
    )
    manifest.save(folder)


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def open_and_measure(
    folder: Path, barrier: Barrier, results: multiprocessing.Queue[tuple[float, int]]
) -> None:
    """One rank: milliseconds, and bytes of private memory."""
    warm_up = epoch_order("global", 100, [(0, 100)])
    warm_up.ids(0, np.arange(10))
    before = private_bytes()
    barrier.wait()
    started = time.perf_counter()
    index = ImageIndex(folder)
    reader = RecordReader(index)
    spans = [(c.start, c.stop) for c in index.manifest.containers]
    order = epoch_order("global", len(index), spans, dead_ids=index.dead_ids)
    ids = order.ids(0, np.arange(BATCH))
    milliseconds = 1000 * (time.perf_counter() - started)
    rows = index.rows[order.ids(0, np.arange(1000))]
    barrier.wait()  # pages are private while only one process has touched them
    results.put((milliseconds, private_bytes() - before))
    barrier.wait()
    assert len(ids) == BATCH and len(rows) == 1000 and reader.index is index


def measure_opening(folder: Path, ranks: int) -> list[tuple[float, int]]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    processes = [
        context.Process(target=open_and_measure, args=(folder, barrier, results))
        for _ in range(ranks)
    ]
    for process in processes:
        process.start()
    measured = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return measured


def records_per_second(folder: Path) -> float:
    index = ImageIndex(folder)
    reader = RecordReader(index)
    order = epoch_order("global", len(index), [(0, len(index))])
    for epoch in range(2):  # the first one brings the pages
        ids = order.ids(epoch, np.arange(len(index)))
        started = time.perf_counter()
        for first in range(0, len(index), BATCH):
            reader.read(ids[first : first + BATCH])
    return len(index) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    console = Console(record=True, width=100)
    table = Table(
        title=f"opening, {options.ranks} ranks at once, {options.rounds} rounds, {date.today()}"
    )
    for column in ("images", "containers", "ms (median)", "range", "private MB (most)"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        for images, per_container, length in SIZES:
            folder = Path(scratch) / f"{images}-{per_container}"
            make(folder, images, per_container, length)
            found = [
                m for _ in range(options.rounds) for m in measure_opening(folder, options.ranks)
            ]
            times = [milliseconds for milliseconds, _ in found]
            table.add_row(
                f"{images:,}",
                f"{-(-images // per_container):,}",
                f"{statistics.median(times):.1f}",
                f"{min(times):.1f}-{max(times):.1f}",
                f"{max(memory for _, memory in found) / 1e6:.1f}",
            )
        console.print(table)
        make(Path(scratch) / "read", *READ)
        rates = [records_per_second(Path(scratch) / "read") for _ in range(options.rounds)]
    console.print(
        f"reader: {statistics.median(rates):,.0f} records/s (median of {options.rounds}; "
        f"{min(rates):,.0f}-{max(rates):,.0f})"
    )
    if options.save:
        path = Path(__file__).parent / "results" / f"opening-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
