"""Ingest on Ray makes the same bytes, also when it is killed and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import coke
from coke.distributed.ray_workers import ray_pool
from coke.tools.datasets.ingest import ingest

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow

REPOSITORY = Path(coke.__file__).parents[1]
# 61 images are checked 16 at a time, and stored 8 at a time: 4 results, then 8.
SETTINGS: dict[str, Any] = {"shard_size": 8, "engine": "ray"}
QUIET = Console(quiet=True)

KILLED_AFTER_RESULTS = """
import os, signal, sys
from contextlib import contextmanager
from coke.distributed import ray_workers
from coke.tools.datasets.ingest import ingest
src, out, address, left = *sys.argv[1:4], int(sys.argv[4])
ray_pool = ray_workers.ray_pool

@contextmanager
def dying_pool(*args, **options):
    with ray_pool(*args, **options) as run:
        def counted(function, tasks):
            global left
            for result in run(function, tasks):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield result
        yield counted

ray_workers.ray_pool = dying_pool
ingest(src, out, shard_size=8, engine="ray", ray_address=address)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Ray cluster on this machine with two cores, to which this process belongs."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(REPOSITORY)  # what a cluster's nodes have installed
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray") / "src"
    rng = np.random.default_rng(0)
    for i in range(60):
        path = root / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8))
        image.save(path, "PNG" if i % 7 == 3 else "JPEG")
    (root / "a" / "bad.jpg").write_bytes(b"no image")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _square(number: int) -> int:
    return number * number


def _fail(number: int) -> int:
    raise ValueError(f"no {number}")


def test_results_are_in_order_and_errors_are_the_functions_own(cluster: str) -> None:
    with ray_pool(None, address=None) as run:
        assert list(run(_square, range(50))) == [n * n for n in range(50)]
    with pytest.raises(ValueError, match=r"^no 0$"), ray_pool(1, address=None) as run:
        list(run(_fail, range(3)))
    assert ray.is_initialized()  # whoever connected before us is still connected


@pytest.mark.parametrize(("results", "images", "containers"), [(6, 61, 2)])
def test_killed_after_so_many_results_it_continues_to_the_same_bytes(
    cluster: str, src: Path, tmp_path: Path, results: int, images: int, containers: int
) -> None:
    """Pieces that Ray was at work on may be finished too, so more than that may be resumed."""
    ingest(src, tmp_path / "whole", shard_size=8, workers=1, console=QUIET)
    (tmp_path / "script.py").write_text(KILLED_AFTER_RESULTS, encoding="utf-8")
    out = tmp_path / "out"
    arguments = [str(src), str(out), cluster, str(results)]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), *arguments],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not out.exists()
    report = ingest(src, out, **SETTINGS, console=QUIET)
    assert contents(out) == contents(tmp_path / "whole")
    assert report.resumed_images >= images
    assert report.resumed_containers >= containers
    assert not (tmp_path / ".out.partial").exists()


def test_an_address_without_a_cluster_is_an_error(
    tmp_path: Path, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def unreachable(**_: object) -> None:
        raise ConnectionError("no such host")

    monkeypatch.setattr(ray, "init", unreachable)
    with pytest.raises(ValueError, match="cannot reach a Ray cluster at nowhere:1.*--ray-address"):
        ingest(src, tmp_path / "out", **SETTINGS, ray_address="nowhere:1", console=QUIET)
    assert [*tmp_path.iterdir()] == []


def test_without_ray_the_install_line_is_named(
    tmp_path: Path, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'coke\[ray\]'"):
        ingest(src, tmp_path / "out", **SETTINGS, console=QUIET)
