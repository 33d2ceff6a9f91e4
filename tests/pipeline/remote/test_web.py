"""Images on the web: what servers answer, what they do not, and what has no end."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from coke.pipeline.remote import web
from coke.pipeline.remote.web import NoAnswerError, RefusedError, fetch_image

pytest.importorskip("aiohttp", reason="http:// needs aiohttp")

IMAGE = bytes(range(256)) * 40


class _Server(ThreadingHTTPServer):
    """Answers by the path: ``/503/x`` with that status, ``/endless`` without end, and so on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        name = self.path.split("/")[1]
        if name.isdigit():
            self.send_error(int(name))
        elif hasattr(self, f"_{name}"):
            getattr(self, f"_{name}")()
        else:
            self._send(IMAGE)

    def _send(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _busy(self) -> None:  # twice, then the image
        if self.server.asked[self.path] < 3:
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(IMAGE)

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.stopping.wait(0.001):
                self.wfile.write(b"\xff" * 10_000)
        except OSError:
            pass

    def _trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.stopping.wait(0.02):
                self.wfile.write(b"\xff")
                self.wfile.flush()
        except OSError:
            pass

    def _huge(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000000000")
        self.end_headers()

    def _bomb(self) -> None:
        self._send(gzip.compress(bytes(3_000_000)), Content_Encoding="gzip")

    def _packed(self) -> None:
        self._send(gzip.compress(IMAGE), Content_Encoding="gzip")

    def _cut(self) -> None:
        self._send(IMAGE[:100], Content_Length=str(len(IMAGE)))

    def _round(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/round")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _moved(self) -> None:
        self.send_response(301)
        self.send_header("Location", "/image.jpg")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _silence(self) -> None:
        self.server.stopping.wait()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(web, "FIRST_PAUSE_S", 0)
    monkeypatch.setattr(web, "_unreached", Counter())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = _Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield running
    running.stopping.set()
    running.shutdown()
    running.server_close()


def reason(url: str) -> str:
    with pytest.raises((RefusedError, NoAnswerError)) as refused:
        fetch_image(url)
    return f"{type(refused.value).__name__}: {refused.value.strerror}"


def test_an_image_arrives_whole(server: _Server) -> None:
    for path in ("image.jpg", "image.jpg?signature=a%2Fb", "packed", "moved"):
        assert fetch_image(f"{server.url}/{path}") == IMAGE


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found"), (410, "Gone"), (418, "")],
)
def test_a_refusal_is_an_answer(server: _Server, status: int, phrase: str) -> None:
    found = reason(f"{server.url}/{status}/x.jpg")
    assert found.startswith(f"RefusedError: the server answered {status} {phrase}")
    assert server.asked.total() == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_is_tried_again(server: _Server, status: int) -> None:
    found = reason(f"{server.url}/{status}/x.jpg")
    assert found.startswith(f"NoAnswerError: the server answered {status} ")
    assert found.endswith(", 5 times") and server.asked.total() == 5


def test_trouble_that_passes_is_no_trouble(server: _Server) -> None:
    assert fetch_image(f"{server.url}/busy") == IMAGE
    assert server.asked["/busy"] == 3


def test_a_response_that_breaks_off_is_no_image(server: _Server) -> None:
    assert reason(f"{server.url}/cut").startswith("NoAnswerError: no answer (")
    assert server.asked["/cut"] == 5


@pytest.mark.parametrize("path", ["endless", "huge", "bomb"])
def test_more_than_an_image_has_is_not_read(
    server: _Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(web, "MOST_BYTES", 1_000_000)
    found = reason(f"{server.url}/{path}")
    assert found.startswith("RefusedError: the response has more than 1,000,000 bytes: if it is")
    assert server.asked.total() == 1


@pytest.mark.parametrize("path", ["trickle", "silence"])
def test_no_image_takes_longer_than_the_limit(
    server: _Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(web, "MOST_SECONDS", 0.5)
    assert reason(f"{server.url}/{path}") == "NoAnswerError: no whole answer in time"


def test_a_redirection_without_end(server: _Server) -> None:
    assert reason(f"{server.url}/round") == "RefusedError: too many redirects"


@pytest.mark.parametrize("url", ["http:///x", "http://127.0.0.1:99999/x", "http://[bad/x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    assert reason(url).startswith("RefusedError: no valid URL (")


def test_an_unknown_host_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "FIRST_PAUSE_S", 1000)  # would be noticed
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    lookups, response = Counter[str](), web._response

    def counted(url: str, seconds: float) -> Any:
        lookups[url] += 1
        return response(url, seconds)

    monkeypatch.setattr(web, "_unknown_until", {})
    monkeypatch.setattr(web, "_response", counted)
    for name in ("x.jpg", "y.jpg"):
        found = reason(f"http://no-such-host.invalid/{name}")
        assert found == "NoAnswerError: the name of its host is unknown"
    assert lookups.total() == 1


def test_a_host_out_of_reach_gets_one_try_an_image_until_it_answers(server: _Server) -> None:
    for i in range(5):
        reason(f"{server.url}/cut/{i}.jpg")
    asked = [server.asked[f"/cut/{i}.jpg"] for i in range(5)]
    assert asked == [5, 5, 5, 1, 1]
    assert fetch_image(f"{server.url}/image.jpg") == IMAGE
    reason(f"{server.url}/cut/x.jpg")
    assert server.asked["/cut/x.jpg"] == 5


def test_a_host_that_answers_with_errors_keeps_all_its_tries(server: _Server) -> None:
    for i in range(5):
        reason(f"{server.url}/503/{i}.jpg")
    assert [server.asked[f"/503/{i}.jpg"] for i in range(5)] == [5] * 5
