"""Fixtures of all tests: tiny data sets and settings, and what hides the machine from tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from coke.config.config import Config
from coke.tools.datasets.ingest import ingest
from tests.support import pretended_machine
from tests.support.small_vit import shrink_vit
from tests.support.stripes import draw_stripes
from tests.support.tiny_config import tiny_config


def pytest_configure() -> None:
    # Tensors are tiny here: more threads only wait for each other, in processes of tests as well.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files that take long begin first, so that none of several processes is left with one.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    ranks = {item.path for item in items if item.get_closest_marker("ddp")}
    items.sort(key=lambda item: (item.path not in ranks, -slow[item.path], str(item.path)))
    pretended = os.environ.get(pretended_machine.GPU) == "1"
    if torch.cuda.is_available() and not pretended:
        return
    reason = "the GPU is pretended" if pretended else "torch sees no GPU here"
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def no_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only tests marked `gpu` see one: to all others, and to their processes, `auto` is the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("gpu"):
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(torch.cuda, "device_count", lambda: 0)
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache of remote data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with cifar10.tar.gz and imagenet-sample.tar."""
    named = os.environ.get("COKE_TEST_DATA", "")
    if not named:
        pytest.skip("COKE_TEST_DATA is not set; it names the folder of the sample archives")
    if not Path(named).is_dir():
        pytest.skip(f"COKE_TEST_DATA names {named!r}, which is no folder")
    return Path(named)


@pytest.fixture(scope="session")
def color_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images in 3 containers, each of one colour, 40 grey levels from any other image's.

    The colour is in the key ("020-060-128.png"), so that a mix-up of ids and pixels shows. A ramp
    of +-12 levels from left to right makes crops and flips of an image differ.
    """
    root = tmp_path_factory.mktemp("color")
    ramp = np.linspace(-12, 12, 40)[None, :, None]
    (root / "src").mkdir()
    for i in range(23):
        color = (20 + i % 5 * 40, 20 + i // 5 * 40, 128)
        pixels = np.broadcast_to(np.array(color) + ramp, (32 + i % 3, 40, 3))
        name = "-".join(f"{c:03d}" for c in color) + ".png"
        Image.fromarray(pixels.round().astype(np.uint8)).save(root / "src" / name)
    ingest(root / "src", root / "out", workers=1, shard_size=10, console=Console(quiet=True))
    return root / "out"


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a train (60 images) and a test (20 images) data set of two classes."""
    root = tmp_path_factory.mktemp("stripes")
    draw_stripes(root / "src" / "train", 60, seed=0)
    draw_stripes(root / "src" / "test", 20, seed=1)
    ingest(root / "src", root / "out", workers=1, console=Console(quiet=True))
    return root / "out"


@pytest.fixture
def tiny() -> Config:
    """See :func:`tiny_config`."""
    return tiny_config()


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """See :func:`shrink_vit`."""
    shrink_vit(monkeypatch)


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """The file system of an S3 server on this machine, without buckets at first."""
    fsspec = pytest.importorskip("fsspec", reason="s3:// needs fsspec")
    server_module = pytest.importorskip("moto.server", reason="the S3 server needs moto and flask")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        system = fsspec.filesystem("s3")
        yield system
    type(system).clear_instance_cache()  # the next module has a server of its own
    server.stop()
