"""Peak memory of `coke cluster` on an .npy file, beyond what Python and torch hold before.

    python benchmarks/cluster_memory.py [--rows 10000000] [--clusters 100] [--folder DIR] [--save]

Anonymous memory of the process (RssAnon of Linux), sampled fifty times a second: pages of the file
itself are the page cache's, and are given back when others need them.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from datetime import date
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from coke.files.npy_rows import NpyRows
from coke.tools.features.cluster import cluster
from coke.tools.features.cluster_settings import ClusterSettings

_BLOCK = 100_000  # rows that are drawn at a time
_INTERVAL = 0.02  # seconds between samples


def anonymous_megabytes() -> float:
    with open("/proc/self/status", encoding="utf-8") as lines:
        line = next(line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


class Watch:
    """Samples the memory of this process until it is stopped."""

    def __init__(self) -> None:
        self.before = self.peak = anonymous_megabytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self.peak = max(self.peak, anonymous_megabytes())


def draw(path: Path, rows: int, width: int) -> None:
    """Normal points, never all in memory."""
    rng = np.random.default_rng(0)
    with NpyRows(path, (rows, width), np.float32) as file:
        for start in track(range(0, rows, _BLOCK), "drawing points", transient=True):
            size = (min(_BLOCK, rows - start), width)
            file.append(rng.standard_normal(size, dtype=np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the points; a temporary one if unset")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    console = Console(record=True, width=120)
    settings = ClusterSettings(clusters=options.clusters, passes=options.passes)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        draw(folder / "warm.npy", 20 * options.clusters, 8)  # loads what is loaded lazily
        cluster(folder / "warm.npy", folder / "warm", settings, console=Console(quiet=True))
        draw(folder / "points.npy", options.rows, options.width)
        watch = Watch()
        try:
            report = cluster(folder / "points.npy", folder / "out", settings, console=console)
        finally:
            watch.stop()
    console.print(
        f"{report.rows:,} x {report.width}, K = {report.clusters:,}: {watch.before:.0f} MB before, "
        f"at most {watch.peak - watch.before:.0f} MB more while clustering, of which "
        f"{8 * report.rows / 1e6:.0f} MB are labels",
        highlight=False,
    )
    console.print(f"{date.today()}: torch {torch.__version__}, {report.seconds:.0f} s")
    if options.save:
        path = Path(__file__).parent / "results" / f"cluster-memory-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
