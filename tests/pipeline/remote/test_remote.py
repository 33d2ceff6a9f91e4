"""Files by name from a server: tried again where that helps, named where it does not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.dataset.open import find_split
from coke.pipeline.remote.remote import Remote, WrongContent, location
from tests.support.web_server import WebServer


@pytest.fixture
def first(shards: Path) -> Container:
    return ImageIndex(shards).manifest.containers[0]


def download(web: WebServer, container: Container, path: Path, attempts: int = 8) -> None:
    Remote(web.url, attempts=attempts).download(
        container.name, path, size=container.size, sha256=container.sha256
    )


def test_locations() -> None:
    assert location("a/b") == location(Path("a/b")) == Path("a/b")
    assert location("s3://bucket/set/") == "s3://bucket/set"
    assert location("file:///a/b") == Path("/a/b")
    with pytest.raises(ValueError, match="s3:/bucket/set is a Path; give a URL as text"):
        location(Path("s3://bucket/set"))


def test_bytes_arrive(web: WebServer, shards: Path, first: Container, tmp_path: Path) -> None:
    download(web, first, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (shards / first.name).read_bytes()
    assert Remote(web.url).read("keys.txt") == (shards / "keys.txt").read_bytes()


@pytest.mark.parametrize("answer", ["fail", "short", "cut", "flip"])
def test_what_goes_wrong_at_times_is_tried_again(
    web: WebServer, shards: Path, first: Container, tmp_path: Path, answer: str
) -> None:
    web.answer = lambda name, count: answer if count == 1 else ""
    download(web, first, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (shards / first.name).read_bytes()
    assert web.served[first.name] == 2


def test_a_server_that_always_fails(web: WebServer, first: Container, tmp_path: Path) -> None:
    web.answer = lambda name, count: "fail"
    with pytest.raises(ValueError, match=f"{first.name} cannot be read, after 4 attempts: .*503"):
        download(web, first, tmp_path / "x", attempts=4)
    assert web.served[first.name] == 4


@pytest.mark.parametrize(
    ("answer", "found", "said"),
    [("short", "{half} bytes", "{size}"), ("flip", "SHA-256 [0-9a-f]{{12}}", "{sha256}")],
)
def test_another_content_is_told_after_a_second_look(
    web: WebServer, first: Container, tmp_path: Path, answer: str, found: str, said: str
) -> None:
    web.answer = lambda name, count: answer
    values = {"half": first.size // 2, "size": first.size, "sha256": first.sha256[:12]}
    message = f"{first.name} has {found}.*, the manifest says {said}".format(**values)
    with pytest.raises(WrongContent, match=message):
        download(web, first, tmp_path / "x")
    assert web.served[first.name] == 2


def test_more_than_there_should_be_is_not_waited_for(
    web: WebServer, first: Container, tmp_path: Path
) -> None:
    with pytest.raises(WrongContent, match=r"has \d+ bytes, the manifest says 100"):
        Remote(web.url).download(first.name, tmp_path / "x", size=100, sha256=first.sha256)
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size <= first.size


def test_a_missing_file_is_not_asked_for_twice(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{web.url}/gone.tar is missing")):
        Remote(web.url).download("gone.tar", tmp_path / "x", sha256="")
    assert web.served["gone.tar"] == 1


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'coke[http]'")):
        Remote("https://example.org/set")
    with pytest.raises(ValueError, match=r"floppy://a/set cannot be opened: .*floppy"):
        Remote("floppy://a/set")


def test_a_refusal_of_a_name_may_mean_that_it_is_not_there(web: WebServer) -> None:
    """As object stores answer users who may not list them."""
    web.answer = lambda name, count: "403" if count == 1 else ""
    assert not Remote(web.url).has("manifest.json")
    assert Remote(web.url).has("manifest.json")
    web.answer = lambda name, count: "403" if count == 3 else ""
    # The first request is for the folder itself, the second for its split: here the same files.
    assert find_split(web.url, (".",)) == f"{web.url}/."
    web.answer = lambda name, count: "403"
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read, after 1 attempts: .*403"):
        find_split(web.url, ("train",))
    web.answer = lambda name, count: "gone"
    with pytest.raises(ValueError, match="is no data set"):
        find_split(web.url, ("train",))
