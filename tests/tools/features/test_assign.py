"""``coke assign``: beside numpy's argmin, beside a solver, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from coke.tools.features.assign import AssignReport, assign
from coke.tools.features.cluster import cluster
from coke.tools.features.cluster_settings import ClusterSettings
from tests.support import command_line

QUIET = Console(quiet=True)


def points(n: int, seed: int) -> NDArray[np.float32]:
    """Around four directions, of shares far from equal."""
    rng = np.random.default_rng(seed)
    which = rng.choice(4, n, p=[0.7, 0.15, 0.1, 0.05])
    corners = 3 * np.random.default_rng(9).normal(size=(4, 5))
    return (corners[which] + rng.normal(size=(n, 5))).astype(np.float32)


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A clustering of 600 points into 6, and its metric."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "x.npy", points(600, 0))
    settings = ClusterSettings(clusters=6, min_ratio=0.8, max_ratio=1.3, metric=request.param)
    cluster(folder / "x.npy", folder / "clusters", settings, console=QUIET)
    return folder / "clusters", request.param


def distances_of(x: NDArray[Any], clustering: Path, metric: str) -> NDArray[np.float64]:
    """(N, K), in numpy's float64."""
    x, centers = x.astype(np.float64), np.load(clustering / "centers.npy")
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosines: NDArray[np.float64] = 1 - x @ centers.T
        return cosines
    euclidean: NDArray[np.float64] = np.linalg.norm(x[:, None] - centers, axis=2)
    return euclidean


def test_nearest_centers_are_numpys_in_every_format(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustering, metric = made
    x, ids = points(250, 1), np.arange(250) * 3 + 7
    monkeypatch.setattr("coke.tools.features.feature_files._BATCH_BYTES", 4 * 5 * 64)
    parts = tmp_path / "parts"
    parts.mkdir()
    np.save(tmp_path / "x.npy", x)
    for i, part in enumerate(np.split(x, [90, 91])):
        np.save(parts / f"part-{i}.npy", part)
    np.savez(tmp_path / "x.npz", features=x, ids=ids)
    rows = [",".join(["id", *(f"f{j}" for j in range(5))])]
    rows += [f"{i}," + ",".join(map(repr, row.tolist())) for i, row in zip(ids, x, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    expected = distances_of(x, clustering, metric)
    for name in ("x.npy", "parts", "x.npz", "x.csv"):
        out = tmp_path / f"out-{name}"
        report = assign(clustering, tmp_path / name, out, console=QUIET)
        labels, distances = np.load(out / "labels.npy"), np.load(out / "distances.npy")
        assert labels.dtype == np.uint8 and distances.dtype == np.float32
        assert labels.tolist() == expected.argmin(axis=1).tolist()
        np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-5, atol=1e-6)
        sizes = np.bincount(labels, minlength=6)
        assert np.load(out / "sizes.npy").tolist() == sizes.tolist()
        assert (report.smallest, report.largest) == (sizes.min(), sizes.max())
        assert report.mean_distance == pytest.approx(expected.min(axis=1).mean(), rel=1e-5)
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        assert summary["rows"] == 250 and summary["keep_sizes"] is False
        assert summary["clustering"] == str(clustering.resolve())
        assert summary["optimality_gap"] is None and summary["metric"] == metric
        if name in ("x.npz", "x.csv"):
            assert np.load(out / "ids.npy").tolist() == ids.tolist()
            table = (out / "labels.tsv").read_text(encoding="utf-8").splitlines()
            assert table[:2] == ["id\tcluster", f"7\t{labels[0]}"]


def test_sizes_hold_at_the_best_price(made: tuple[Path, str], tmp_path: Path) -> None:
    """Beside the Hungarian method, in which every cluster is as many places as it may hold."""
    optimize = pytest.importorskip("scipy.optimize", reason="the other solver is scipy's")
    clustering, metric = made
    x = points(60, 2)  # bounds 8 and 13: 0.8 and 1.3 of 60 / 6
    np.save(tmp_path / "x.npy", x)
    console = Console(file=io.StringIO(), width=120)
    report = assign(
        clustering, tmp_path / "x.npy", tmp_path / "o", keep_sizes=True, console=console
    )
    labels = np.load(tmp_path / "o" / "labels.npy").astype(int)
    sizes = np.bincount(labels, minlength=6)
    assert sizes.min() >= 8 and sizes.max() <= 13 and (report.min_size, report.max_size) == (8, 13)
    costs = distances_of(x, clustering, metric) ** (1 if metric == "cosine" else 2)
    nearest = np.bincount(costs.argmin(axis=1), minlength=6)
    assert nearest.max() > 13, "otherwise nothing would be held"
    # 8 places of each cluster must be taken: all others cost more than any difference.
    places = np.concatenate(
        [np.repeat(costs, 8, axis=1), np.repeat(costs, 5, axis=1) + 1e4], axis=1
    )
    rows, columns = optimize.linear_sum_assignment(places)
    cluster_of = np.concatenate([np.repeat(np.arange(6), 8), np.repeat(np.arange(6), 5)])
    best = costs[rows, cluster_of[columns]].sum()
    found = costs[np.arange(60), labels].sum()
    assert best * (1 - 1e-5) <= found <= best * (1 + 1e-3)
    assert report.optimality_gap is not None and report.optimality_gap < 1e-3
    np.testing.assert_allclose(
        np.load(tmp_path / "o" / "distances.npy"),
        distances_of(x, clustering, metric)[np.arange(60), labels],
        rtol=1e-5,
        atol=1e-6,
    )
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{sizes.min()} to {sizes.max()}; asked for: at least 8, at most 13" in shown


def test_sizes_hold_in_a_stream(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bounds where similarities do not fit into memory; a file that must be copied."""
    clustering, _ = made
    monkeypatch.setattr("coke.clustering.fitting._IN_MEMORY", 600)
    np.savez(tmp_path / "x.npz", points(601, 3))
    report = assign(clustering, tmp_path / "x.npz", tmp_path / "o", keep_sizes=True, console=QUIET)
    assert (report.min_size, report.max_size) == (80, 130)
    assert report.smallest >= 80 and report.largest <= 130
    assert report.optimality_gap is not None and 0 <= report.optimality_gap < 0.2


def test_bounds_in_rows_become_shares(tmp_path: Path) -> None:
    """20 to 60 of 200 rows in 5 clusters are 0.5 and 1.5 of 40; of 50 rows 5 and 15."""
    np.save(tmp_path / "x.npy", points(200, 0))
    settings = ClusterSettings(clusters=5, min_size=20, max_size=60)
    cluster(tmp_path / "x.npy", tmp_path / "c", settings, console=QUIET)
    np.save(tmp_path / "y.npy", points(50, 1))
    report = assign(
        tmp_path / "c", tmp_path / "y.npy", tmp_path / "o", keep_sizes=True, console=QUIET
    )
    assert (report.min_size, report.max_size) == (5, 15)
    assert report.smallest >= 5 and report.largest <= 15


def test_what_cannot_be_assigned_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    np.save(tmp_path / "x.npy", points(100, 0))
    clusters = tmp_path / "c"
    cluster(tmp_path / "x.npy", clusters, ClusterSettings(clusters=4), console=QUIET)

    def line(x: NDArray[Any] | None = None, *options: str) -> str:
        if x is not None:
            np.save(tmp_path / "x.npy", x)
        arguments = ("assign", clusters, tmp_path / "x.npy", tmp_path / "out", *options)
        found = command_line.fails(monkeypatch, capsys, *arguments, status=2)
        assert not (tmp_path / "out").exists()
        return found

    good = points(100, 0)
    assert "x.npy has rows of width 3, the centers of" in line(good[:, :3])
    holes, zero = good.copy(), good.copy()
    holes[7, 2], zero[8] = np.inf, 0
    for options in ((), ("--keep-sizes",)):
        assert "x.npy has inf in row 7, column 2" in line(holes, *options)
        assert "zero vector in row 8" in line(zero, *options)
    np.save(tmp_path / "x.npy", good)
    summary = clusters / "summary.json"
    text = summary.read_text(encoding="utf-8")
    for before, after, message in (
        ('"metric": "cosine"', '"metric": "l1"', "says metric 'l1'; `coke assign` knows cosine"),
        (
            '"clusters": 4',
            '"clusters": 5',
            "holds (4, 5) of float64, where the summary says (5, 5)",
        ),
        ("coke-clusters", "other", "says format 'other' version 1; `coke assign` reads"),
        ('"settings"', '"setting"', "is damaged (KeyError('settings')); cluster again"),
        ("{", "", "is damaged"),
    ):
        summary.write_text(text.replace(before, after), encoding="utf-8")
        assert message in line()
    summary.unlink()
    assert "is no clustering:" in line() and "make one with `coke cluster" in line()
    summary.write_text(text, encoding="utf-8")
    (clusters / "centers.npy").unlink()
    assert "centers.npy cannot be read" in line()


def test_only_an_assignment_is_replaced(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", points(100, 0))
    cluster(tmp_path / "x.npy", tmp_path / "c", ClusterSettings(clusters=4), console=QUIET)

    def run(out: str, overwrite: bool = False) -> AssignReport:
        x, c = tmp_path / "x.npy", tmp_path / "c"
        return assign(c, x, tmp_path / out, overwrite=overwrite, console=QUIET)

    run("o")
    with pytest.raises(ValueError, match="exists"):
        run("o")
    run("o", overwrite=True)
    with pytest.raises(ValueError, match="OUT is .*, the folder of the clustering"):
        run("c", overwrite=True)
    assert (tmp_path / "c" / "centers.npy").is_file()
