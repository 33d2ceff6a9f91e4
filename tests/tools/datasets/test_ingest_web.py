"""Tables of URLs: dead links are rejected with their status; a network that is down stops it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.remote import web
from coke.tools.datasets import ingest_containers, ingest_writes
from coke.tools.datasets.ingest import ingest
from tests.support.web_server import WebServer

pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
QUIET = Console(quiet=True)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Serves 0.jpg .. 5.jpg."""
    monkeypatch.setattr(web, "FIRST_PAUSE_S", 0)
    monkeypatch.setattr(web, "_unreached", Counter())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "web").mkdir()
    for i in range(6):
        pixels = np.full((16, 16, 3), 30 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "web" / f"{i}.jpg")
    running = WebServer(tmp_path / "web")
    yield running
    running.stop()


def table(tmp_path: Path, *urls: str) -> Path:
    lines = "".join(f"{url},{i % 2}\n" for i, url in enumerate(urls))
    path = tmp_path / "table.csv"
    path.write_text(f"path,label\n{lines}", encoding="utf-8")
    return path


def rejections(folder: Path) -> dict[str, str]:
    _, *lines = (folder / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    return {key.rpartition("/")[2]: why for key, why in (line.split("\t") for line in lines)}


def test_dead_links_are_rejected_with_the_reason(server: WebServer, tmp_path: Path) -> None:
    names = {"gone.jpg": 410, "secret.jpg": 403, "broken.jpg": 500}
    server.answer = lambda name, count: f"{names[name]}" if name in names else ""
    src = table(
        tmp_path,
        *[f"{server.url}/{name}" for name in (*names, "missing.jpg", "0.jpg", "1.jpg", "2.jpg")],
        "http://no-such-host.invalid/x.jpg",
    )
    report = ingest(src, tmp_path / "out", workers=1, console=QUIET)
    assert (report.splits[0].images, report.splits[0].rejected) == (3, 5)
    assert rejections(tmp_path / "out") == {
        "gone.jpg": "cannot be read: the server answered 410 Gone",
        "secret.jpg": "cannot be read: the server answered 403 Forbidden",
        "missing.jpg": "cannot be read: the server answered 404 File not found",
        "broken.jpg": "cannot be read: the server answered 500 Internal Server Error, 5 times",
        "x.jpg": "cannot be read: the name of its host is unknown",
    }
    assert [key[-5:] for key in ImageIndex(tmp_path / "out").keys] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_network_that_is_down_stops_with_one_line(server: WebServer, tmp_path: Path) -> None:
    server.answer = lambda name, count: "fail" if name in "0.jpg 1.jpg 2.jpg 3.jpg" else ""
    src = table(tmp_path, *[f"{server.url}/{i}.jpg" for i in range(6)])
    message = (
        r"no answer for 4 of the 6 images of .*table\.csv, more than half of them \(first: "
        r"http.*/0\.jpg: the server answered 503 .*run the same command again"
    )
    with pytest.raises(ValueError, match=message):
        ingest(src, tmp_path / "out", workers=1, console=QUIET)
    assert not (tmp_path / "out").exists()
    # The same command goes on: it asks again only for those that were not answered.
    server.answer = lambda name, count: ""
    before = server.served["4.jpg"]
    report = ingest(src, tmp_path / "out", workers=1, console=QUIET)
    assert report.splits[0].images == 6 and report.resumed_images == 2
    assert server.served["4.jpg"] == before + 1  # to store it, not to look at it again


def test_half_of_the_images_may_be_unanswered(server: WebServer, tmp_path: Path) -> None:
    server.answer = lambda name, count: "fail" if name in "0.jpg 1.jpg 2.jpg" else ""
    src = table(tmp_path, *[f"{server.url}/{i}.jpg" for i in range(6)])
    assert ingest(src, tmp_path / "out", workers=1, console=QUIET).splits[0].rejected == 3


def test_an_image_that_goes_away_between_the_passes_is_named(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(task: ingest_writes.WriteTask) -> ingest_writes.Written:
        server.answer = lambda name, count: "gone" if name == "1.jpg" else ""
        return ingest_writes.write_piece(task)

    monkeypatch.setattr(ingest_containers, "write_piece", gone)
    src = table(tmp_path, *[f"{server.url}/{i}.jpg" for i in range(3)])
    with pytest.raises(ValueError, match=r"1\.jpg was read before, and cannot be now \(the server"):
        ingest(src, tmp_path / "out", workers=1, console=Console(file=io.StringIO()))
