"""The cache keeps its limit, and no partial file has a final name, whichever process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coke.files.lock import give_back
from coke.pipeline.cache.container_cache import ContainerCache
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import Container
from coke.pipeline.dataset.mirror import mirror_manifest
from coke.pipeline.remote.remote import Remote, WrongContent
from tests.support.patience import PATIENCE_S, wait_until
from tests.support.web_server import WebServer


@pytest.fixture
def containers(shards: Path) -> list[Container]:
    """The twelve containers of the data set, all of one size."""
    found = ImageIndex(shards).manifest.containers
    assert len({c.size for c in found}) == 1
    return found


def cache_of(web: WebServer, folder: Path, limit: int) -> ContainerCache:
    remote = Remote(web.url)
    return ContainerCache(remote, mirror_manifest(remote, folder), limit)


def ensure(cache: ContainerCache, container: Container, keep: set[Path] | None = None) -> None:
    cache.ensure(container, keep=lambda: keep or set(), stop=threading.Event())


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*/containers/*")}


def test_a_container_is_fetched_once_and_held(
    web: WebServer, shards: Path, containers: list[Container], tmp_path: Path
) -> None:
    first = containers[0]
    cache = cache_of(web, tmp_path, 10**9)
    assert cache.hold(first) is None
    for _ in range(2):
        ensure(cache, first)
        held = cache.hold(first)
        assert held is not None
        assert os.pread(held, first.size, 0) == (shards / first.name).read_bytes()
        give_back(held)
    assert web.served[first.name] == 1
    assert files(tmp_path) == {first.name: first.size}


def test_the_least_recently_used_goes_first(
    web: WebServer, containers: list[Container], tmp_path: Path
) -> None:
    a, b, c, d = containers[:4]
    cache = cache_of(web, tmp_path, 3 * a.size + 5)
    for container, age in ((a, 10), (b, 30), (c, 20)):
        ensure(cache, container)
        os.utime(cache.path(container), (time.time() - age,) * 2)
    held = cache.hold(b)  # used now
    assert held is not None
    give_back(held)
    ensure(cache, d)
    assert set(files(tmp_path)) == {a.name, b.name, d.name}


def test_what_is_held_or_kept_stays(
    web: WebServer, containers: list[Container], tmp_path: Path
) -> None:
    a, b, c, d = containers[:4]
    cache = cache_of(web, tmp_path, 2 * a.size)
    other = cache_of(web, tmp_path, 2 * a.size)  # as another process would see it
    ensure(cache, a)
    ensure(cache, b)
    held = cache.hold(a)
    assert held is not None
    ensure(other, c)
    assert set(files(tmp_path)) == {a.name, c.name}
    stop, keep = threading.Event(), {cache.path(c)}
    waiting = threading.Thread(
        target=other.ensure, args=(d,), kwargs={"keep": keep.copy, "stop": stop}
    )
    waiting.start()
    time.sleep(0.2)
    assert set(files(tmp_path)) == {a.name, c.name}
    give_back(held)
    waiting.join(PATIENCE_S)
    assert set(files(tmp_path)) == {c.name, d.name}


def test_a_stop_ends_the_waiting(
    web: WebServer, containers: list[Container], tmp_path: Path
) -> None:
    cache, stop = cache_of(web, tmp_path, containers[0].size - 1), threading.Event()
    waiting = threading.Thread(
        target=cache.ensure, args=(containers[0],), kwargs={"keep": set, "stop": stop}
    )
    waiting.start()
    stop.set()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    assert files(tmp_path) == {}


@pytest.mark.parametrize("answer", ["short", "flip"])
def test_a_wrong_container_leaves_nothing(
    web: WebServer, containers: list[Container], tmp_path: Path, answer: str
) -> None:
    cache = cache_of(web, tmp_path, 10**9)
    web.answer = lambda name, count: answer
    with pytest.raises(WrongContent):
        ensure(cache, containers[0])
    assert files(tmp_path) == {}


def test_many_at_once_download_each_container_once_within_the_limit(
    web: WebServer, containers: list[Container], tmp_path: Path
) -> None:
    limit = 12 * containers[0].size
    most: list[int] = []

    def watch(name: str, count: int) -> str:
        parts = [n for n in files(tmp_path) if n.endswith(".part")]
        whole = sum(size for n, size in files(tmp_path).items() if not n.endswith(".part"))
        most.append(whole + len(parts) * containers[0].size)
        return ""

    caches = [cache_of(web, tmp_path, limit) for _ in range(4)]
    web.answer = watch

    def work(cache: ContainerCache) -> None:
        for container in containers:
            ensure(cache, container)

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [web.served[c.name] for c in containers] == [1] * 12
    assert len(files(tmp_path)) == 12
    assert max(most) <= limit


@pytest.mark.slow
def test_a_killed_download_leaves_nothing_under_a_final_name(
    web: WebServer, shards: Path, containers: list[Container], tmp_path: Path
) -> None:
    first = containers[0]
    web.answer = lambda name, count: "hang" if name == first.name else ""
    program = (
        "import sys, threading\n"
        "from coke.pipeline.loading.reader import RecordReader\n"
        "from coke.pipeline.dataset.index import ImageIndex\n"
        "RecordReader(ImageIndex(sys.argv[1], cache_dir=sys.argv[2])).read([0])\n"
    )
    part = f"{first.name}.{first.size}.part"
    with subprocess.Popen([sys.executable, "-c", program, web.url, str(tmp_path)]) as killed:
        try:
            wait_until(lambda: web.served[first.name] > 0, "the download")
            assert set(files(tmp_path)) == {part}
        finally:
            killed.send_signal(signal.SIGKILL)
    assert set(files(tmp_path)) == {part}
    web.answer = lambda name, count: ""
    # There is room for one container only if the dead process's partial file is found.
    cache = cache_of(web, tmp_path, first.size)
    ensure(cache, first)
    assert files(tmp_path) == {first.name: first.size}
    assert cache.path(first).read_bytes() == (shards / first.name).read_bytes()
