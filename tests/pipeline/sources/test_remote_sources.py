"""Sources behind URLs: an S3 server, an HTTP server, memory; failures that pass and that stay."""

from __future__ import annotations

import gzip
import re
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from benchmarks.sources import (
    LAYOUTS,
    as_validation,
    synthetic,
    tar_bytes,
    write_folders,
    write_parquet,
    write_plain_tar,
)
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.remote.web import RefusedError
from coke.pipeline.sources import Source, find_splits, parquet, storage
from coke.tools.datasets.ingest import ingest

PICTURES = synthetic(13)
KEYS = tuple(picture.key for picture in PICTURES)


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE_S", 0)


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def upload(root: Path, prefix: str, system: Any) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())


@pytest.mark.parametrize(
    "name",
    ["class folders", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "WebDataset, .json",
     "parquet, Hugging Face", "CSV", "a coke data set"],
)  # fmt: skip
def test_every_layout_is_the_same_behind_a_url(name: str, tmp_path: Path, memory: Any) -> None:
    layout = LAYOUTS[name]
    pytest.importorskip(layout.needs, reason="the layout needs an optional package")
    src = layout.write(tmp_path, as_validation(PICTURES) if layout.validation else PICTURES)
    upload(tmp_path, "/bucket/x", memory)
    memory.pipe_file("/bucket/y/9.jpg", b"another collection")
    url = f"memory://bucket/x/{src.relative_to(tmp_path).as_posix()}".removesuffix("/.")
    local, remote = only(find_splits(src)), only(find_splits(url))
    assert (remote.keys, remote.labels, remote.classes) == (
        local.keys, local.labels, local.classes,
    )  # fmt: skip
    count = len(local)
    assert [remote.read(i) for i in range(count)] == [local.read(i) for i in range(count)]
    assert remote.describe(3) == local.describe(3).replace(str(tmp_path), "memory://bucket/x")


def test_splits_and_nested_layouts_in_a_bucket(memory: Any) -> None:
    for name in ("train/b/1.jpg", "train/a/1.jpg", "val/a/1.jpg", "val/.x/2.jpg", "notes.txt"):
        memory.pipe_file(f"/b/{name}", name.encode())
    found = find_splits("memory://b/")
    assert list(found) == ["train", "val"] and found["val"].keys == ("a/1.jpg",)
    assert found["train"].labels == (0, 1) and found["train"].read(1) == b"train/b/1.jpg"


def test_compressed_tars_in_a_bucket(memory: Any, tmp_path: Path) -> None:
    for name, member in (("a.tar", b"a"), ("b.tgz", b"b"), ("c.tar", None)):
        data = b"" if member is None else tar_bytes([(f"{name}.jpg", member), ("notes.txt", b"")])
        memory.pipe(f"/b/{name}", gzip.compress(data) if name.endswith("tgz") else data)
    with pytest.raises(ValueError, match="b.tgz is a tar compressed with gzip; unpack it"):
        find_splits("memory://b")
    with pytest.raises(ValueError, match=r"memory://b/c\.tar is truncated or damaged: empty file"):
        find_splits("memory://b", scratch=tmp_path)
    memory.rm("/b/c.tar")
    found = find_splits("memory://b", scratch=tmp_path)[""]
    assert found.keys == ("a.tar.jpg", "b.tgz.jpg")
    assert [found.read(i) for i in range(2)] == [b"a", b"b"]


def test_what_is_not_there(memory: Any) -> None:
    with pytest.raises(ValueError, match="memory://b/x does not exist"):
        find_splits("memory://b/x")
    memory.pipe_file("/b/1.txt", b"")
    with pytest.raises(ValueError, match=r"no images in memory://b: it holds 1 other files"):
        find_splits("memory://b")
    with pytest.raises(ValueError, match=r"ftps3://b cannot be opened: .* known are paths and s3"):
        find_splits("ftps3://b")


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gcs"),
        ("hf://datasets/a/b", "huggingface_hub", "hf"),
        ("https://host/x.tar", "aiohttp", "http"),
    ],
)
def test_a_missing_package_is_named_with_its_install_line(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [*sys.modules]:
        if module in ("fsspec.implementations.http", "s3fs", "s3fs.core"):
            monkeypatch.delitem(sys.modules, module)
    protocol = url.partition("://")[0]
    loaded = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(loaded, protocol, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    message = f"{protocol}:// needs the package {package}: pip install 'coke[{extra}]'"
    with pytest.raises(ValueError, match=re.escape(message)):
        find_splits(url)


def test_failures_that_pass_and_failures_that_stay(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for picture in PICTURES:
        memory.pipe_file(f"/b/{picture.key}", picture.data)
    source = only(find_splits("memory://b"))
    real, calls = memory.cat_file, []

    def flaky(path: str, **options: Any) -> bytes:
        calls.append(path)
        if len(calls) % storage._TRIES:
            raise TimeoutError("slow down")
        return bytes(real(path, **options))

    monkeypatch.setattr(memory, "cat_file", flaky)
    assert source.read(0) == PICTURES[0].data and len(calls) == storage._TRIES
    memory.rm_file(f"/b/{KEYS[1]}")
    monkeypatch.setattr(memory, "cat_file", real)
    with pytest.raises(FileNotFoundError) as gone:  # an answer: nothing to wait for
        source.read(1)
    assert gone.value.strerror == "No such file"

    class NoCredentialsError(Exception):
        pass

    def locked(path: str, **_: Any) -> bytes:
        calls.append(path)
        raise NoCredentialsError("unable to locate credentials")

    calls.clear()
    monkeypatch.setattr(memory, "cat_file", locked)
    with pytest.raises(PermissionError, match="access denied"):
        source.read(0)
    assert len(calls) == 1

    def down(path: str, **_: Any) -> bytes:
        raise OSError("connection reset")

    monkeypatch.setattr(memory, "cat_file", down)
    with pytest.raises(ConnectionError, match="no answer after 5 tries"):
        source.read(0)
    # An image that cannot be reached is not a bad image: leaving it out would move ids.
    with pytest.raises(ValueError, match=rf"memory://b/{KEYS[0]} cannot be read: no answer after"):
        ingest("memory://b", tmp_path / "out", workers=1, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_shuffled_parquet_is_not_read_over_a_network(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    upload(write_parquet(tmp_path, synthetic(150), rows=50), "/p", memory)
    monkeypatch.setattr(parquet, "_MOST_TRANSFERRED", 0)
    assert len(only(find_splits("memory://p"))) == 150  # three row groups are held at a time
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 0)
    with pytest.raises(ValueError, match=r"memory://p are not in the order of their paths.*GB"):
        find_splits("memory://p")
    assert len(only(find_splits(tmp_path))) == 150
    # One file in the order of its keys is read once.
    assert len(only(find_splits("memory://p/train-00001-of-00003.parquet"))) == 50


# --- S3, as moto serves it on this machine ---


@pytest.mark.slow
def test_ingest_from_s3_gives_the_data_set_of_the_local_files(s3: Any, tmp_path: Path) -> None:
    write_folders(tmp_path / "folders", PICTURES)
    (tmp_path / "parquet").mkdir()
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    write_parquet(tmp_path / "parquet", PICTURES)
    write_plain_tar(tmp_path, PICTURES)
    s3.mkdir("pictures")
    upload(tmp_path, "pictures", s3)
    quiet = Console(quiet=True)
    ingest(tmp_path / "folders", tmp_path / "local", workers=1, console=quiet)
    expected = ImageIndex(tmp_path / "local")
    for src in ("folders/", "parquet", "images.tar"):
        out = tmp_path / f"out-{len(src)}"
        labels = "folders" if src == "images.tar" else "auto"
        ingest(f"s3://pictures/{src}", out, workers=1, labels=labels, console=quiet)
        index = ImageIndex(out)
        assert index.identity == expected.identity
        assert index.labels.tolist() == expected.labels.tolist()
        assert index.manifest.classes == expected.manifest.classes
    with pytest.raises(ValueError, match="source s3://pictures/nothing does not exist"):
        find_splits("s3://pictures/nothing")


# --- HTTP ---


class _Files(BaseHTTPRequestHandler):
    """Serves a dictionary; understands ranges unless told otherwise."""

    files: dict[str, bytes]
    ranges = True

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        data = self.files.get(self.path.partition("?")[0])
        if data is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and self.ranges:
            start, stop = int(asked[1]), int(asked[2]) + 1
            self.send_response(206)
            whole, data = len(data), data[start:stop]
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{whole}")
        else:
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http() -> Iterator[tuple[str, type[_Files]]]:
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    handler = type("Handler", (_Files,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_single_files_over_http(http: tuple[str, type[_Files]], tmp_path: Path) -> None:
    host, handler = http
    tar = write_plain_tar(tmp_path, PICTURES).read_bytes()
    rows = "".join(f"{p.key},{p.wnid}\n" for p in PICTURES)
    handler.files = {"/x/images.tar": tar, "/x/labels.csv": rows.encode()}
    handler.files |= {f"/x/{p.key}": p.data for p in PICTURES[1:]}
    for source in (
        only(find_splits(f"{host}/x/images.tar?signature=abc", labels="folders")),
        only(find_splits(f"{host}/x/labels.csv")),
    ):
        assert source.keys == KEYS
        assert source.read(4) == PICTURES[4].data
        assert source.labels == tuple(i for i in source.labels if i >= 0)
    with pytest.raises(RefusedError, match="404"):
        only(find_splits(f"{host}/x/labels.csv")).read(0)
    with pytest.raises(ValueError, match="over HTTP, a source is one file"):
        find_splits(f"{host}/x")


def test_a_server_without_ranges_is_named(http: tuple[str, type[_Files]], tmp_path: Path) -> None:
    host, handler = http
    handler.files = {"/images.tar": write_plain_tar(tmp_path, PICTURES).read_bytes()}
    source = only(find_splits(f"{host}/images.tar"))
    handler.ranges = False
    with pytest.raises(OSError, match="does not answer requests for parts of a file"):
        source.read(2)
    # Otherwise the server would send the whole file for each image, to be rejected.
    with pytest.raises(ValueError, match=r"images\.tar sends whole files only, .* download the"):
        find_splits(f"{host}/images.tar")


def test_a_source_that_a_server_refuses_is_named_with_the_reason(
    http: tuple[str, type[_Files]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, handler = http
    monkeypatch.setattr(handler, "_answer", lambda self, **_: self.send_error(403))
    with pytest.raises(ValueError, match=r"a\.tar cannot be read: the server answered 403 Forbi"):
        find_splits(f"{host}/a.tar")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.tar"
        with pytest.raises(ValueError, match=r"a\.tar cannot be read: no answer \(Cannot connect"):
            find_splits(url)
