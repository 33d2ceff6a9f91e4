"""A web server that has bad days."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WebServer:
    """Serves a folder on the loopback interface.

    Attributes:
        url: of the folder.
        served: how often each file was asked for.
        answer: decides, from a file's name and how many requests came in all, what happens:
            ``""`` it is served, ``"fail"`` error 503, ``"gone"`` error 404, ``"403"`` and other
            numbers that error, ``"short"`` a file of half the size, ``"cut"`` the connection
            breaks halfway, ``"hang"`` no byte until the server stops, ``"flip"`` a byte is
            another.
    """

    def __init__(self, folder: Path) -> None:
        self.served: Counter[str] = Counter()
        self.answer: Callable[[str, int], str] = lambda name, count: ""
        self.stopping = threading.Event()
        handler = partial(_Handler, owner=self, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, owner: WebServer, **kwargs: Any) -> None:
        self.owner = owner
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.owner.served[name] += 1
        answer = self.owner.answer(name, self.owner.served.total())
        if answer == "":
            super().do_GET()
        elif answer == "fail":
            self.send_error(503)
        elif answer == "gone":
            self.send_error(404)
        elif answer.isdigit():
            self.send_error(int(answer))
        elif answer == "hang":
            self.owner.stopping.wait()
        else:
            data = bytearray(Path(self.translate_path(self.path)).read_bytes())
            half = len(data) // 2
            data[half] ^= answer == "flip"
            self.send_response(200)
            self.send_header("Content-Length", str(half if answer == "short" else len(data)))
            self.end_headers()
            self.wfile.write(data if answer == "flip" else data[:half])

    def log_message(self, *_: Any) -> None:
        pass
