"""Ingest on Ray makes the same bytes, also when it is killed and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
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
PIECES = 4 + 8  # 60 images are checked 16 at a time and stored 8 at a time
SETTINGS: dict[str, Any] = {"shard_size": 8, "engine": "ray"}
QUIET = Console(quiet=True)


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


def test_killed_at_random_moments_it_continues_to_the_same_bytes(
    cluster: str, src: Path, tmp_path: Path
) -> None:
    ingest(src, tmp_path / "whole", shard_size=8, workers=1, console=QUIET)
    expected = contents(tmp_path / "whole")
    script = (
        "import sys\n"
        "from coke.tools.datasets.ingest import ingest\n"
        "if __name__ == '__main__':\n"
        "    src, out, address = sys.argv[1:]\n"
        "    ingest(src, out, shard_size=8, engine='ray', ray_address=address)\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    resumed = []
    for pieces in (2, 6, 10):
        out = tmp_path / f"out{pieces}"
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), str(src), str(out), cluster],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if len([*tmp_path.glob(f".{out.name}.partial/*/journal/*.done")]) >= pieces:
                break
            time.sleep(0.002)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if out.exists():  # too late: it had ended
            assert contents(out) == expected
            continue
        report = ingest(src, out, **SETTINGS, console=QUIET)
        assert contents(out) == expected
        resumed.append((report.resumed_images, report.resumed_containers))
        assert not (tmp_path / f".{out.name}.partial").exists()
    assert len(resumed) >= 2
    assert any(0 < images < 61 for images, _ in resumed)
    assert any(containers > 0 for _, containers in resumed)


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
