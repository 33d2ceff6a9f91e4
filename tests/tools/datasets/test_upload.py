"""A data set made for a URL: the same bytes as in a folder, manifests last, nothing sent twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.remote.remote import Remote
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.upload import Upload
from tests.support.stripes import draw_stripes

QUIET: dict[str, Any] = {"console": Console(quiet=True), "workers": 1, "shard_size": 4}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    draw_stripes(tmp_path / "src" / "train", 10, seed=0)
    draw_stripes(tmp_path / "src" / "test", 5, seed=1)
    return tmp_path / "src"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("coke.pipeline.remote.remote.BACK_OFF_S", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def store() -> Iterator[Any]:
    """fsspec's store in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def local(src: Path, tmp_path: Path) -> dict[str, bytes]:
    ingest(src, tmp_path / "local", **QUIET)
    return files_below(tmp_path / "local")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}


def stored(store: Any, url: str) -> dict[str, bytes]:
    root = f"/{url.partition('://')[2]}/"
    return {name[len(root) :]: store.cat_file(name) for name in store.find(root)}


def test_the_url_holds_what_a_folder_would(
    src: Path, local: dict[str, bytes], store: Any, cache: Path
) -> None:
    report = ingest(src, "memory://bucket/set", **QUIET)
    assert stored(store, "memory://bucket/set") == local
    assert report.out == "memory://bucket/set"
    assert list((cache / "uploads").iterdir()) == []  # the local copy is gone


@pytest.mark.slow
def test_a_bucket_holds_a_data_set_that_opens_there(
    src: Path, local: dict[str, bytes], s3: Any, cache: Path
) -> None:
    s3.mkdir("made")
    ingest(src, "s3://made/deep/set/", **QUIET)
    found = {name[len("made/deep/set/") :]: s3.cat_file(name) for name in s3.find("made")}
    assert found == local
    index = ImageIndex("s3://made/deep/set/train")
    assert len(index) == 10 and index.keys == sorted(index.keys)
    with pytest.raises(ValueError, match="add --overwrite"):
        ingest(src, "s3://made/deep/set", **QUIET)


@pytest.mark.slow
def test_an_upload_that_fails_anywhere_goes_on_and_sends_nothing_twice(
    src: Path, local: dict[str, bytes], store: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, really_upload = "memory://bucket/set", Remote.upload
    sent: list[str] = []

    def upload(self: Remote, name: str, path: Path) -> None:
        if name.endswith(".write_test"):
            return really_upload(self, name, path)
        if len(sent) == stop_after:
            raise ValueError(f"{name} cannot be written")
        really_upload(self, name, path)
        sent.append(name)

    monkeypatch.setattr("coke.tools.datasets.upload._CONNECTIONS", 1)
    monkeypatch.setattr(Remote, "upload", upload)
    for stop_after in range(len(local)):
        store.store.clear()
        sent.clear()
        with pytest.raises(ValueError, match="cannot be written"):
            ingest(src, url, **QUIET)
        so_far = stored(store, url)
        assert len(so_far) == stop_after
        # No manifest before all other files are there.
        assert len(local) - stop_after <= 2 or not any("manifest" in name for name in so_far)
        before, stop_after = list(sent), -1
        # An object store has no other writer of these names: what the journal has is there.
        made = monkeypatch.context()
        with made as patch:
            patch.setattr(
                "coke.tools.datasets.ingest._ingest_splits", None
            )  # no container is written again
            ingest(src, url, **QUIET, overwrite=True)
        assert stored(store, url) == local
        again = [name for name in sent[len(before) :] if name in before and "manifest" not in name]
        assert again == []


@pytest.mark.slow
def test_files_of_another_interrupted_upload_are_not_taken_for_ours(
    src: Path, local: dict[str, bytes], store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, really_upload = "memory://bucket/set", Remote.upload

    def all_but_manifests(self: Remote, name: str, path: Path) -> None:
        if "manifest" in name:
            raise ValueError(f"{name} cannot be written")
        really_upload(self, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", all_but_manifests)
        for side in (None, 8):  # the same names, other bytes
            with pytest.raises(ValueError, match="cannot be written"):
                ingest(src, url, **QUIET, resize_shorter=side)
    assert stored(store, url)["train/images-00000.tar"] != local["train/images-00000.tar"]
    ingest(src, url, **QUIET)
    assert stored(store, url) == local


def test_a_data_set_is_replaced_only_when_asked_and_its_other_files_go(
    src: Path, local: dict[str, bytes], store: Any, tmp_path: Path
) -> None:
    url = "memory://bucket/set"
    ingest(src, url, **{**QUIET, "shard_size": 1})
    assert len(stored(store, url)) > len(local)
    with pytest.raises(ValueError, match=r"memory://bucket/set holds a data set; add --overwrite"):
        ingest(src, url, **QUIET)
    ingest(src, url, **QUIET, overwrite=True)
    assert stored(store, url) == local
    store.pipe_file("/bucket/set/notes.txt", b"mine")
    with pytest.raises(ValueError, match=r"memory://bucket/set holds notes.txt, which is no part"):
        ingest(src, url, **QUIET, overwrite=True)
    assert store.cat_file("/bucket/set/notes.txt") == b"mine"


def test_requests_that_fail_now_and_then_are_repeated(
    src: Path, local: dict[str, bytes], store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_put, calls = type(store).put_file, iter(range(1000))

    def put_file(self: Any, *args: Any, **kwargs: Any) -> None:
        if next(calls) % 3 == 0:
            raise OSError("connection reset")
        really_put(self, *args, **kwargs)

    monkeypatch.setattr(type(store), "put_file", put_file)
    ingest(src, "memory://bucket/set", **QUIET)
    assert stored(store, "memory://bucket/set") == local


def test_what_cannot_work_is_said_before_work_starts(
    src: Path, store: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="http:// needs coke[http]")
    with pytest.raises(ValueError, match=r"http:// only reads; give a folder, or s3://"):
        ingest(src, "http://127.0.0.1:9/set", **QUIET)
    with pytest.raises(ValueError, match="base is s3://a/b; give a local copy"):
        ingest(src, "memory://bucket/set", base="s3://a/b", **QUIET)
    held = Upload("memory://bucket/set", overwrite=False, restart=False, console=QUIET["console"])
    with held, pytest.raises(ValueError, match=r"process \d+ on .* is writing memory://bucket/set"):
        ingest(src, "memory://bucket/set", **QUIET)
    ingest(src, "memory://bucket/set", **QUIET)
    assert os.listdir(cache / "uploads") == []


def test_nothing_stays_of_an_ingest_that_was_refused(store: Any, cache: Path, src: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        ingest(src / "nowhere", "memory://bucket/set", **QUIET)
    assert os.listdir(cache / "uploads") == [] and store.find("/") == []


def test_a_place_that_cannot_be_written_is_found_before_work(
    src: Path, store: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_splits(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("work has begun")

    def no_access(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr("coke.tools.datasets.ingest.find_splits", find_splits)
    monkeypatch.setattr(type(store), "put_file", no_access)
    with pytest.raises(ValueError, match="memory://bucket/set/.* cannot be written.*read only"):
        ingest(src, "memory://bucket/set", **QUIET)
    (cache.parent / "file").touch()
    monkeypatch.setenv("COKE_CACHE", str(cache.parent / "file" / "cache"))
    with pytest.raises(ValueError, match="Not a directory; .*set COKE_CACHE"):
        ingest(src, "memory://bucket/set", **QUIET)
    assert not any(cache.rglob("*.*"))


def test_a_bucket_that_does_not_exist_is_named_before_work(
    src: Path, s3: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coke.tools.datasets.ingest.find_splits", None)
    with pytest.raises(ValueError, match="s3://nowhere/set cannot be written: the bucket does not"):
        ingest(src, "s3://nowhere/set", **QUIET)
    assert not any((cache / "uploads").iterdir())
