"""``coke demo``: where its images come from, and the whole of it on a small stand-in."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from coke.config.config import Config
from coke.config.presets import presets
from coke.tools.demo import demo as demo_module
from coke.tools.demo.demo import demo, find_fashion_mnist


def write_idx(folder: Path) -> dict[str, str]:
    """Bright and dark images in MNIST's four files; returns their content hashes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    hashes = {}
    for stem, n in (("train", 40), ("t10k", 20)):
        labels = np.arange(n, dtype=np.uint8) % 2
        pixels = (labels[:, None, None] * 120 + rng.integers(0, 100, (n, 28, 28))).astype(np.uint8)
        for name, array in ((f"{stem}-images-idx3", pixels), (f"{stem}-labels-idx1", labels)):
            shape = np.array(array.shape, dtype=">u4").tobytes()
            content = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))
            hashes[f"{name}-ubyte.gz"] = hashlib.sha256(content).hexdigest()
    return hashes


@pytest.mark.slow
def test_runs_from_files_to_a_table(
    tmp_path: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path / "mnist")
    monkeypatch.setattr(demo_module, "DEBIAN_FOLDER", tmp_path / "mnist")
    small = tiny.changed(preset="demo", optimizer={"epochs": 1})
    monkeypatch.setitem(presets, "demo", small)
    console = Console(file=io.StringIO(), width=120)
    better = demo(tmp_path / "out", console=console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    table = shown[shown.rindex("top-1 accuracy") :]
    for word in ("linear", "k-NN", "random initialisation", "raw pixels", "CoKe"):
        assert word in table
    assert better is ("not above" not in table)
    demo(tmp_path / "out", console=console)  # again: the data set is kept, the run replaced


def test_downloads_where_debian_has_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Console
) -> None:
    hashes = write_idx(tmp_path / "public")
    monkeypatch.setattr(demo_module, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(demo_module, "PUBLIC_SOURCE", (tmp_path / "public").as_uri())
    with pytest.raises(ValueError, match="content SHA-256 .* not c59f46"):
        find_fashion_mnist(tmp_path / "download", quiet)
    assert list((tmp_path / "download").iterdir()) == [], "nothing damaged is left"
    monkeypatch.setattr(demo_module, "CONTENT_SHA256", hashes)
    assert find_fashion_mnist(tmp_path / "download", quiet) == tmp_path / "download"
    assert sorted(p.name for p in (tmp_path / "download").iterdir()) == sorted(hashes)


def test_names_debians_package_where_nothing_can_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Console
) -> None:
    monkeypatch.setattr(demo_module, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(demo_module, "PUBLIC_SOURCE", (tmp_path / "nowhere").as_uri())
    with pytest.raises(ValueError, match="apt-get install dataset-fashion-mnist"):
        find_fashion_mnist(tmp_path / "download", quiet)
