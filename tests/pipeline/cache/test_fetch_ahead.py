"""Remote data sets, read while they are fetched, in less room than they take."""

from __future__ import annotations

import fcntl
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.cache import fetch_ahead
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.pipeline.loading.loader import Batch, Loader, build_loader
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.order.epoch_order import EpochOrder
from coke.pipeline.order.order import epoch_order
from tests.support.patience import PATIENCE_S, wait_until
from tests.support.web_server import WebServer

RECIPE = ViewRecipe(size=8)


@pytest.fixture
def size(shards: Path) -> int:
    """Size of each of the twelve containers, in bytes."""
    return ImageIndex(shards).manifest.containers[0].size


def in_cache(folder: Path) -> int:
    """Bytes of all containers in the cache, partial ones included."""
    found = 0
    for path in folder.glob("*/containers/*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:  # renamed or evicted meanwhile
            continue
    return found


def loader_of(index: ImageIndex, limit: int, **options: Any) -> Loader:
    defaults: dict[str, Any] = {"order": "blocks", "window": 1, "batch_size": 5, "backend": "pil"}
    return build_loader(index, [RECIPE], cache_gb=limit / 1e9, **(defaults | options))


def blocks_of(index: ImageIndex, **options: Any) -> EpochOrder:
    spans = [(c.start, c.stop) for c in index.manifest.containers]
    return epoch_order("blocks", len(index), spans, **options)


def ids_of(batches: list[Batch]) -> list[int]:
    return [i for batch in batches for i in batch.ids.tolist()]


def watched(loader: Loader, folder: Path, limit: int) -> list[Batch]:
    """An epoch, during which the cache never outgrows its limit."""
    batches, over, done = [], [], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            over.extend([in_cache(folder)] * (in_cache(folder) > limit))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for batch in loader.epoch(0):
            assert in_cache(folder) <= limit
            batches.append(batch)
    finally:
        done.set()
        thread.join()
    assert over == []
    return batches


@pytest.mark.parametrize("failing", [False, True])
def test_an_epoch_over_http_in_a_third_of_the_room(
    web: WebServer, shards: Path, size: int, tmp_path: Path, failing: bool
) -> None:
    """Each id once, with the pixels of the local data set; also where every fifth request fails."""
    if failing:
        web.answer = lambda name, count: "fail" if count % 5 == 0 else ""
    index = ImageIndex(web.url + "/", cache_dir=tmp_path)
    assert index.location == web.url
    assert web.served["keys.txt"] == web.served["images-00000.tar"] == 0
    batches = watched(loader_of(index, 4 * size), tmp_path, 4 * size)
    assert sorted(ids_of(batches)) == list(range(120))
    local = loader_of(ImageIndex(shards), 0).epoch(0)
    for a, b in zip(batches, local, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.views[0], b.views[0])
    assert index.keys == ImageIndex(shards).keys
    assert list(tmp_path.glob("*/containers/*.part")) == []
    if not failing:
        assert [web.served[c.name] for c in index.manifest.containers] == [1] * 12


def test_containers_without_a_chosen_image_are_not_fetched(
    web: WebServer, size: int, tmp_path: Path
) -> None:
    """12 containers of 10; the chosen ids lie in the first, the fourth and the last."""
    index = ImageIndex(web.url, cache_dir=tmp_path).subset([0, 7, 9, 30, 39, 110, 119])
    batches = list(loader_of(index, 4 * size).epoch(0))
    assert sorted(ids_of(batches)) == [0, 7, 9, 30, 39, 110, 119]
    served = [web.served[c.name] for c in index.manifest.containers]
    assert served == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.fixture
def bucket(shards: Path, s3: Any) -> str:
    """The shards in a bucket of a local S3 server; the URL of their folder."""
    s3.mkdir("images")
    for path in shards.iterdir():
        s3.put_file(str(path), f"images/set/train/{path.name}")
    return "s3://images/set"


@pytest.mark.slow
def test_an_epoch_from_a_bucket_in_a_third_of_the_room(
    bucket: str, shards: Path, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COKE_CACHE", str(tmp_path))
    found = find_split(bucket, ("train",))
    assert found == f"{bucket}/train"
    batches = watched(loader_of(ImageIndex(found), 4 * size), tmp_path, 4 * size)
    assert sorted(ids_of(batches)) == list(range(120))
    local = loader_of(ImageIndex(shards), 0).epoch(0)
    for a, b in zip(batches, local, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.views[0], b.views[0])
    with pytest.raises(ValueError, match=r"s3://images/gone is no data set .*nor in train\)"):
        find_split("s3://images/gone", ("train",))
    with pytest.raises(ValueError, match=r"s3://images/set is no data set: .*manifest.json is"):
        ImageIndex(bucket)


def test_the_epoch_runs_while_it_downloads(web: WebServer, size: int, tmp_path: Path) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    order = blocks_of(index, window=2)
    late = {index.manifest.containers[n].name for n in order.windows(0)[-1].containers}
    released = threading.Event()

    def answer(name: str, count: int) -> str:
        if name in late:
            released.wait(PATIENCE_S)
        return ""

    web.answer = answer
    reader = RecordReader(index, cache_gb=12 * size / 1e9)
    reader.follow(order.windows(0))
    assert len(reader.read(order.ids(0, np.arange(100)))) == 100
    # The last ones were asked for long before they are needed: the cache has room for them.
    wait_until(lambda: sum(web.served[name] for name in late) >= 2, "the last containers")
    released.set()
    assert len(reader.read(order.ids(0, np.arange(100, 120)))) == 20


@pytest.mark.parametrize("window", [1, 2])
def test_ranks_of_a_host_share_the_cache(
    web: WebServer, shards: Path, size: int, tmp_path: Path, window: int
) -> None:
    """Two ranks in step, in a cache that holds little more than what they read at a time."""
    index = ImageIndex(web.url, cache_dir=tmp_path)
    local = RecordReader(ImageIndex(shards))
    order = blocks_of(index, window=window)
    limit = 3 * window * size
    readers = [RecordReader(index, cache_gb=limit / 1e9) for _ in range(2)]
    for epoch in range(2):
        for reader in readers:
            reader.follow(order.windows(epoch))
        for first in range(0, 120, 5):
            for rank, reader in enumerate(readers):
                ids = order.ids(epoch, np.arange(first + rank, first + 5, 2))
                for a, b in zip(reader.read(ids), local.read(ids), strict=True):
                    assert a.tobytes() == b.tobytes()
            assert in_cache(tmp_path) <= limit
    if window == 1:
        # Two ranks and epochs of twelve containers would take 48 downloads without sharing.
        assert sum(web.served[c.name] for c in index.manifest.containers) < 48


def test_a_rank_far_ahead_does_not_stop_another(web: WebServer, size: int, tmp_path: Path) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    order = blocks_of(index, window=1)
    ahead, behind = (RecordReader(index, cache_gb=3 * size / 1e9) for _ in range(2))
    ahead.follow(order.windows(0))
    behind.follow(order.windows(0))
    ahead.read(order.ids(0, np.arange(60, 65)))
    for first in range(0, 120, 5):
        behind.read(order.ids(0, np.arange(first, first + 5)))
    assert in_cache(tmp_path) <= 3 * size


@pytest.mark.parametrize("answer", ["short", "flip", "gone"])
def test_a_bad_container_is_named_and_what_comes_before_it_is_read(
    web: WebServer, size: int, tmp_path: Path, answer: str
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    victim = blocks_of(index, window=1).windows(0)[7].containers[0]
    container = index.manifest.containers[victim]
    name = container.name
    web.answer = lambda asked, count: answer if asked == name else ""
    loader = loader_of(index, 12 * size)
    seen: list[Batch] = []
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        seen.extend(loader.epoch(0))
    assert sorted({i // 10 for i in ids_of(seen)}) == sorted(
        c for w in blocks_of(index, window=1).windows(0)[:7] for c in w.containers
    )
    message = str(caught.value)
    assert f"container {name} (ids {container.start}..{container.stop - 1})" in message
    if answer == "short":
        assert f"has {size // 2} bytes, the manifest says {size}" in message
        ends = index.rows["offset"] + index.rows["length"]
        cut = next(i for i in range(container.start, container.stop) if ends[i] > size // 2)
        assert f"first record cut off is {index.describe(cut)}" in message
    elif answer == "flip":
        assert "SHA-256" in message
    assert list(tmp_path.glob(f"*/containers/{name}*")) == []


def test_a_missing_container_is_named(
    web: WebServer, shards: Path, size: int, tmp_path: Path
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    (shards / "images-00003.tar").rename(shards / "away")
    try:
        with pytest.raises(
            ValueError, match=r"container images-00003\.tar \(ids 30\.\.39\) .*miss"
        ):
            RecordReader(index, cache_gb=1).read([35])
    finally:
        (shards / "away").rename(shards / "images-00003.tar")


def test_a_silent_server_is_an_error_and_not_a_wait_for_ever(
    web: WebServer, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_ahead, "STALL_S", 0.3)
    index = ImageIndex(web.url, cache_dir=tmp_path)
    web.answer = lambda name, count: "hang"
    with pytest.raises(ValueError, match=r"images-00000\.tar .*: nothing arrived for 0 s, after 0"):
        RecordReader(index, cache_gb=1).read([0])


def test_a_cache_that_others_fill_is_an_error_and_not_a_wait_for_ever(
    web: WebServer, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    other = RecordReader(index, cache_gb=2 * size / 1e9)
    other.read([0, 10])  # a reader that goes no further
    monkeypatch.setattr(fetch_ahead, "STALL_S", 0.5)
    reader = RecordReader(index, cache_gb=2 * size / 1e9)
    with pytest.raises(
        ValueError, match=r"images-00002\.tar found no room in the cache .*cache_gb"
    ):
        reader.read([20])


@pytest.mark.parametrize(
    ("options", "containers", "remedy"),
    [
        ({"order": "global"}, 12, "order=blocks"),
        ({"window": 6}, 12, "a smaller window"),
        ({"window": 2, "batch_size": 4}, 4, "cache_gb="),
        ({"shuffle": False}, 4, "cache_gb="),
    ],
)
def test_a_cache_too_small_for_the_order_is_refused_at_once(
    web: WebServer, size: int, tmp_path: Path, options: dict[str, Any], containers: int, remedy: str
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=f"reads {containers} containers .*{remedy}"):
        loader_of(index, containers * size - 1, **options)
    loader_of(index, containers * size, **options)


def test_global_order_in_a_cache_that_holds_it_all(
    web: WebServer, shards: Path, size: int, tmp_path: Path
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    loader = loader_of(index, 12 * size, order="global")
    for epoch in range(2):
        assert sorted(ids_of(list(loader.epoch(epoch)))) == list(range(120))
    assert [web.served[c.name] for c in index.manifest.containers] == [1] * 12


def held_files(folder: Path) -> list[str]:
    """Containers in the cache that must not be evicted."""
    held = []
    for path in folder.glob("*/containers/*.tar"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


def downloading() -> set[threading.Thread]:
    """Threads that download; fsspec and the web server have others, as many as they like."""
    return {thread for thread in threading.enumerate() if "_fetch" in thread.name}


def test_abandoned_epochs_and_loaders_leave_nothing_held(
    web: WebServer, size: int, tmp_path: Path
) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    before = set(threading.enumerate())
    loader = loader_of(index, 4 * size)
    for epoch in range(4):
        for _ in zip(range(7), loader.epoch(epoch), strict=False):
            pass
    assert sorted(ids_of(list(loader.epoch(4)))) == list(range(120))
    assert held_files(tmp_path) == []  # the epoch has ended
    next(loader.epoch(5))
    # A download that goes on in the background holds a second container for a moment.
    wait_until(lambda: len(held_files(tmp_path)) == 1, "a single held container")
    assert not downloading() <= before
    del loader
    wait_until(lambda: held_files(tmp_path) == [], "the release of all containers")
    wait_until(lambda: downloading() <= before, "the end of all downloads")


@pytest.mark.slow
def test_a_loader_of_a_remote_data_set_resumes(web: WebServer, size: int, tmp_path: Path) -> None:
    index = ImageIndex(web.url, cache_dir=tmp_path)
    whole = list(loader_of(index, 4 * size).epoch(1))
    for step in (0, 3, 11, 24):
        rest = list(loader_of(index, 4 * size).epoch(1, start=5 * step))
        assert ids_of(rest) == ids_of(whole[step:])
