"""``coke cluster``: the files it writes, what it refuses, and that nothing half-written is left."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from coke import OnlineConstrainedKMeans
from coke.clustering import fitting
from coke.tools.features import cluster as cluster_module
from coke.tools.features.cluster import cluster
from coke.tools.features.cluster_settings import ClusterSettings
from coke.tools.features.feature_files import Features

QUIET = Console(quiet=True)
SETTINGS = ClusterSettings(clusters=6, min_ratio=0.8)


@pytest.fixture(scope="module")
def x() -> NDArray[np.float32]:
    """600 points around four directions, of sizes far from equal."""
    rng = np.random.default_rng(0)
    which = rng.choice(4, 600, p=[0.7, 0.15, 0.1, 0.05])
    points = 3 * rng.normal(size=(4, 5))[which] + rng.normal(size=(600, 5))
    return points.astype(np.float32)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_what_the_estimator_finds(x: NDArray[np.float32], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out"
    console = Console(file=io.StringIO(), width=120, quiet=False)
    report = cluster(tmp_path / "x.npy", out, SETTINGS, console=console)
    km = OnlineConstrainedKMeans(6, min_ratio=0.8, random_state=0).fit(x)
    labels = np.load(out / "labels.npy")
    assert labels.dtype == np.uint8 and np.array_equal(labels, km.labels_)
    assert np.array_equal(np.load(out / "centers.npy"), km.cluster_centers_)
    assert np.array_equal(np.load(out / "duals.npy"), km.duals_)
    sizes = np.load(out / "sizes.npy")
    assert np.array_equal(sizes, np.bincount(labels, minlength=6)) and sizes.min() >= 80
    assert names(out) == sorted(
        ["labels.npy", "centers.npy", "duals.npy", "sizes.npy", "summary.json"]
    ), "rows without ids have no table"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["rows"] == 600 and summary["width"] == 5 and summary["clusters"] == 6
    assert summary["min_size"] == 80 and summary["max_size"] is None
    assert (summary["smallest"], summary["largest"]) == (sizes.min(), sizes.max())
    assert summary["objective"] == pytest.approx(km.objective_)
    assert summary["optimality_gap"] == report.optimality_gap == pytest.approx(km.optimality_gap_)
    assert summary["objective"] <= summary["bound"] * (1 + 1e-6)
    assert summary["passes"] == km.n_iter_ and summary["seconds"] > 0
    assert summary["settings"]["min_ratio"] == 0.8 and summary["settings"]["seed"] == 0
    assert summary["input"]["path"] == str((tmp_path / "x.npy").resolve())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{sizes.min()} to {sizes.max()}; asked for: at least 80" in shown
    assert names(tmp_path) == ["out", "x.npy"]


def test_ids_and_keys_are_carried_along(x: NDArray[np.float32], tmp_path: Path) -> None:
    ids = np.arange(600)[::-1] * 3
    folder = tmp_path / "features"
    folder.mkdir()
    np.save(folder / "features.npy", x)
    np.save(folder / "ids.npy", ids)
    keys = [f"a/{i}.jpg" for i in range(600)]
    (folder / "keys.txt").write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
    cluster(folder, tmp_path / "out", SETTINGS, console=QUIET)
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert np.array_equal(np.load(tmp_path / "out" / "ids.npy"), ids)
    head, *lines = (tmp_path / "out" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    assert head == "id\tkey\tcluster"
    expected = zip(ids.tolist(), keys, labels.tolist(), strict=True)
    assert lines == [f"{i}\t{key}\t{label}" for i, key, label in expected]

    (folder / "ids.npy").unlink()
    (folder / "keys.txt").unlink()
    np.save(folder / "ids.npy", np.array([*keys[:-1], "tab\there"]))
    cluster(folder, tmp_path / "texts", SETTINGS, console=QUIET)
    head, *lines = (tmp_path / "texts" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    assert head == "key\tcluster" and lines[0] == f"a/0.jpg\t{labels[0]}"
    assert lines[-1] == f"tab\\there\t{labels[-1]}"
    assert not (tmp_path / "texts" / "ids.npy").exists()


def test_every_format_gives_the_same_clusters(
    x: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are the same if passes read at random from the file or from a copy of it."""
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    torch_file = pytest.importorskip("safetensors.numpy", reason="safetensors is optional")
    monkeypatch.setattr(fitting, "_IN_MEMORY", 0)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x)
    parquet.write_table(pa.table({"e": list(x)}), tmp_path / "x.parquet", row_group_size=100)
    torch_file.save_file({"x": x}, tmp_path / "x.safetensors")
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    np.savetxt(tmp_path / "x.tsv", x, delimiter="\t", header="\t".join("abcde"))
    (tmp_path / "parts").mkdir()
    for i, part in enumerate(np.array_split(x, 11)):
        np.save(tmp_path / "parts" / f"{i}.npy", part)
    found = {}
    for name in ("x.npy", "x.npz", "x.parquet", "x.safetensors", "x.csv", "x.tsv", "parts"):
        cluster(tmp_path / name, tmp_path / f"{name}-out", SETTINGS, console=QUIET)
        found[name] = (tmp_path / f"{name}-out" / "labels.npy").read_bytes()
    assert len(set(found.values())) == 1


def test_a_table_of_coordinates_far_from_zero(tmp_path: Path) -> None:
    """UTM metres with names: float32 would round them to half a metre, and mix up the places."""
    rng = np.random.default_rng(0)
    places = np.array([[500_000.0, 4_600_000], [500_000.4, 4_600_000], [500_000, 4_600_000.4]])
    which = rng.permutation(np.arange(90) % 3)
    rows = places[which] + rng.normal(scale=0.02, size=(90, 2))
    lines = [f"p{i};{east!r};{north!r}" for i, (east, north) in enumerate(rows.tolist())]
    text = "\n".join(["name;east;north", *lines])
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    settings = ClusterSettings(clusters=3, metric="euclidean", min_ratio=1)
    cluster(tmp_path / "x.csv", tmp_path / "out", settings, key="name", console=QUIET)
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert len(set(zip(which.tolist(), labels.tolist(), strict=True))) == 3, "one label per place"
    head, first, *_ = (tmp_path / "out" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    assert (head, first) == ("key\tcluster", f"p0\t{labels[0]}")
    assert np.load(tmp_path / "out" / "centers.npy").dtype == np.float64


def test_labels_have_the_smallest_type(x: NDArray[np.float32], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    for clusters, dtype in ((256, np.uint8), (257, np.uint16)):
        settings = ClusterSettings(clusters=clusters, passes=1)
        cluster(tmp_path / "x.npy", tmp_path / "out", settings, overwrite=True, console=QUIET)
        assert np.load(tmp_path / "out" / "labels.npy").dtype == dtype


def test_an_existing_folder_is_replaced_only_on_request(
    x: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out"
    cluster(tmp_path / "x.npy", out, SETTINGS, console=QUIET)
    with pytest.raises(ValueError, match=r"out exists and is not empty; add --overwrite"):
        cluster(tmp_path / "x.npy", out, SETTINGS, console=QUIET)
    cluster(tmp_path / "x.npy", out, ClusterSettings(clusters=3), overwrite=True, console=QUIET)
    assert len(np.load(out / "sizes.npy")) == 3
    (out / "thesis.tex").write_text("all my work", encoding="utf-8")
    with pytest.raises(ValueError, match=r"thesis\.tex, which is no part of a coke clustering"):
        cluster(tmp_path / "x.npy", out, SETTINGS, overwrite=True, console=QUIET)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "labels.npy").write_bytes(b"not of a clustering")
    with pytest.raises(ValueError, match="is no part of a coke clustering"):
        cluster(tmp_path / "x.npy", other, SETTINGS, overwrite=True, console=QUIET)
    with pytest.raises(ValueError, match="where the features are"):
        cluster(other.parent / "x.npy", tmp_path / "x.npy", SETTINGS, console=QUIET)


@pytest.mark.parametrize("moment", ["reading", "fitting", "writing"])
def test_an_interruption_leaves_nothing(
    moment: str, x: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    np.savez(tmp_path / "x.npz", x)
    target = {
        "reading": (Features, "batches"),
        "fitting": (OnlineConstrainedKMeans, "fit"),
        "writing": (cluster_module, "ClusterReport"),
    }[moment]
    monkeypatch.setattr(*target, interrupted)
    with pytest.raises(KeyboardInterrupt):
        cluster(tmp_path / "x.npz", tmp_path / "out", SETTINGS, console=QUIET)
    assert names(tmp_path) == ["x.npz"]


def test_a_place_that_cannot_be_written_is_found_before_anything_is_read(
    x: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", x)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(Features, "batches", None)
    for out in ("file", "file/out", "file/a/out", "a" * 300):
        with pytest.raises(ValueError, match="is a file; give a folder|cannot write .*; choose an"):
            cluster(tmp_path / "x.npz", tmp_path / out, SETTINGS, console=QUIET)
    assert names(tmp_path) == ["file", "x.npz"]


def test_features_that_change_meanwhile_are_refused(
    x: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "x.npz", x)
    fit = OnlineConstrainedKMeans.fit

    def slow(self: OnlineConstrainedKMeans, points: Any) -> OnlineConstrainedKMeans:
        fit(self, points)
        np.savez(tmp_path / "x.npz", x[:99])
        return self

    monkeypatch.setattr(OnlineConstrainedKMeans, "fit", slow)
    with pytest.raises(ValueError, match=r"x\.npz has changed while it was read"):
        cluster(tmp_path / "x.npz", tmp_path / "out", SETTINGS, console=QUIET)
    assert names(tmp_path) == ["x.npz"]


def test_what_cannot_be_clustered_is_refused_and_leaves_nothing(
    x: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clustered(settings: dict[str, Any]) -> None:
        cluster(tmp_path / "x.npy", tmp_path / "out", ClusterSettings(**settings), console=QUIET)

    def error(x: NDArray[Any], **settings: Any) -> str:
        np.save(tmp_path / "x.npy", x)
        with pytest.raises(ValueError, match=".") as caught:
            clustered({"clusters": 6} | settings)
        assert names(tmp_path) == ["x.npy"]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--clusters is 601, but there are only 600 rows" in error(x, clusters=601)
    assert "--clusters is 0" in error(x, clusters=0)
    assert "--passes is 0" in error(x, passes=0)
    assert "--seed is -1" in error(x, seed=-1)
    assert "min_size is 101" in error(x, min_size=101)
    assert "max_size is 99" in error(x, max_size=99)
    assert "--min-ratio 0.4 and --min-size 3" in error(x, min_ratio=0.4, min_size=3)
    assert "--min-ratio is 1.5" in error(x, min_ratio=1.5)
    assert "--max-ratio 2 and --max-size 30" in error(x, max_ratio=2, max_size=30)
    assert "--max-ratio is 0.5" in error(x, max_ratio=0.5)
    assert "--metric is 'l1'; choose one of cosine, euclidean" in error(x, metric="l1")
    holes = x.copy()
    holes[71, 3] = np.nan
    assert "x.npy has nan in row 71, column 3" in error(holes)
    zero = x.copy()
    zero[72] = 0
    assert "zero vector in row 72" in error(zero)
    cluster(tmp_path / "x.npy", tmp_path / "o", ClusterSettings(metric="euclidean"), console=QUIET)

    (tmp_path / "x.npy").unlink()
    np.savez(tmp_path / "x.npz", x)
    usage = type("Usage", (), {"free": 11_999})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"temporary file of .* name a larger folder in \$TMPDIR"):
        cluster(tmp_path / "x.npz", tmp_path / "out", SETTINGS, console=QUIET)
    assert not (tmp_path / "out").exists()
