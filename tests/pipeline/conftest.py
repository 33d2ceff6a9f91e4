"""A data set of many containers, and a web server for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.pipeline.remote import remote
from coke.tools.datasets.ingest import ingest
from tests.support.web_server import WebServer


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 JPEGs of noise in 12 containers of equal size."""
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    (root / "src").mkdir()
    for i in range(120):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "src" / f"{i:03d}.jpg")
    ingest(root / "src", root / "out", workers=1, shard_size=10, console=Console(quiet=True))
    return root / "out"


@pytest.fixture
def web(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """The shards behind a web server; waits between attempts are short."""
    pytest.importorskip("aiohttp", reason="http:// needs coke[http]")
    monkeypatch.setattr(remote, "BACK_OFF_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = WebServer(shards)
    yield server
    server.stop()
