"""The parts of a page that show images: clusters, neighbours, the map."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from coke.pipeline.sources.keys import to_system
from coke.tools.datasets.ingest import ingest
from coke.tools.features.cluster import cluster
from coke.tools.features.cluster_settings import ClusterSettings
from coke.tools.features.embed import EmbedSettings, embed
from coke.tools.features.feature_files import open_features
from coke.tools.page.cluster_stats import shares, stats_of
from coke.tools.page.clustering_pictures import ClusteredFeatures, clustering_pictures
from coke.tools.page.content import Section
from coke.tools.page.feature_stream import FileFeatures
from coke.tools.page.pictures import PictureSettings
from coke.tools.page.report import report_clustering, report_run
from coke.tools.page.run_pictures import RunImages, run_pictures
from coke.tools.page.sample_map import pca
from coke.tools.page.survey import Assigned, Head, Survey, margins, survey
from coke.tools.page.thumbnails import square
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.train import train
from tests.support.browser import screenshot
from tests.support.command_line import fails
from tests.support.stripes import draw_stripes
from tests.support.tiny_config import tiny_config

pytest.importorskip("jinja2", reason="pages need coke[report]")
pytest.importorskip("plotly", reason="pages need coke[report]")

QUIET = Console(quiet=True)
HOSTILE = "<script>alert(1) é 図"
FEW = PictureSettings(points=30, umap=False)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of two classes, one of which has a name that a page must escape."""
    root = tmp_path_factory.mktemp("hostile")
    draw_stripes(root / "src", 40, seed=0)
    (root / "src" / "vertical").rename(root / "src" / to_system(HOSTILE))
    ingest(root / "src", root / "data", workers=1, console=QUIET)
    return root / "data"


@pytest.fixture(scope="module")
def trained(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    config = tiny_config().changed(optimizer={"epochs": 1}, clustering={"n_clusters": (3, 5)})
    out = tmp_path_factory.mktemp("run") / "run"
    train(config, hostile, out, console=QUIET)
    return out


def widget(sections: list[Section], kind: str) -> Any:
    """The data of the only widget of a kind."""
    (found,) = [w.data for section in sections for w in section.widgets if w.kind == kind]
    return found


def outside(page: Path) -> list[str]:
    """What the page's own markup and scripts would fetch; plotly.js is left out."""
    text = page.read_text(encoding="utf-8")
    own = re.sub(r"<script>.{1000000,}?</script>", "", text, flags=re.DOTALL)
    assert 0 < len(own) < len(text) - 1_000_000, "plotly.js is in the page"
    markup = re.sub(r"<script>.*?</script>", "", own, flags=re.DOTALL)
    found: list[str] = re.findall(r"""(?:src|href)=["'](?!#)[^"']*""", markup)
    return found + re.findall(
        r"fetch\(|XMLHttpRequest|import\(|@import|url\(|https?://[^\s\"']*", own
    )


@pytest.mark.slow
def test_a_runs_page_shows_the_clusters_that_it_says(
    hostile: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    report_run(trained, RunImages(data=str(hostile)), FEW, out=out, console=QUIET)
    text = out.read_text(encoding="utf-8")
    assert "<script>alert" not in text and outside(out) == []
    assert "\\u003cscript>alert(1) é 図" in text, "the class's name is a text of the script"
    found = run_pictures(trained, RunImages(data=str(hostile)), FEW, QUIET)
    store = RunFolder(trained).state()["clustering"]["label_store"]["labels"]
    shown = widget(found.sections, "gallery")["heads"]
    assert [head["name"] for head in shown] == ["K=3", "K=5"]
    for head, labels in zip(shown, store, strict=True):
        assert head["note"] == f"All {len(head['clusters'])} clusters are shown."
        for card in head["clusters"]:
            members = (labels == card["number"]).nonzero().flatten().tolist()
            assert card["size"] == len(members)
            assert {row for row, _ in card["nearest"]} <= {*members}
            assert {*card["random"]} <= {*members}
            assert all(other != card["number"] for _, _, other in card["borderline"])
    assert f"All {len(shown[0]['clusters'])} clusters are shown." in text
    rows = {row for head in shown for card in head["clusters"] for row in card["random"]}
    assert rows <= {int(row) for row in found.images["of"]}, "every row shown has a picture"


@pytest.mark.slow
def test_other_images_belong_to_the_nearest_center(
    stripes: Path, hostile: Path, trained: Path, tmp_path: Path
) -> None:
    pictures = run_pictures(trained, RunImages(data=str(stripes), split="test"), FEW, QUIET)
    assert "nearest center" in pictures.sections[0].note
    out = tmp_path / "features"
    embed(trained, stripes, out, EmbedSettings(), split="test", console=QUIET)
    images = RunImages(data=str(hostile), features=out)
    with pytest.raises(ValueError, match="is another data set"):
        run_pictures(trained, images, FEW, QUIET)
    images = RunImages(data=str(stripes), split="test", features=out)
    same = run_pictures(trained, images, FEW, QUIET)
    first, second = (widget(p.sections, "gallery")["heads"] for p in (pictures, same))
    sizes = [[[c["size"] for c in head["clusters"]] for head in heads] for heads in (first, second)]
    assert sizes[0] == sizes[1], "from a file as from the images"


def clustering(folder: Path, x: NDArray[np.float32], k: int) -> tuple[Path, ClusteredFeatures]:
    np.save(folder / "x.npy", x)
    settings = ClusterSettings(clusters=k, metric="euclidean", min_ratio=0.0, passes=2)
    cluster(folder / "x.npy", folder / "clusters", settings, console=QUIET)
    return folder / "clusters", ClusteredFeatures(features=folder / "x.npy")


def test_one_cluster(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    path, of = clustering(tmp_path, x, 1)
    found = clustering_pictures(path, of, FEW, QUIET)
    (head,) = widget(found.sections, "gallery")["heads"]
    (card,) = head["clusters"]
    assert (head["note"], card["size"], card["borderline"]) == (
        "The only cluster is shown.",
        50,
        [],
    )
    distances = np.linalg.norm(x - x.mean(axis=0), axis=1)
    assert [row for row, _ in card["nearest"]] == np.argsort(distances)[:8].tolist()
    report_clustering(path, of, FEW, out=tmp_path / "page.html", console=QUIET)
    assert outside(tmp_path / "page.html") == []


@pytest.mark.slow
def test_5000_clusters_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    path, of = clustering(tmp_path, x, 5000)
    found = clustering_pictures(path, of, PictureSettings(points=50, umap=False), QUIET)
    (head,) = widget(found.sections, "gallery")["heads"]
    sizes = np.bincount(np.load(path / "labels.npy"), minlength=5000)
    assert len(head["clusters"]) == 160
    assert head["note"].startswith("160 of 5,000 clusters are shown: the 26 first and last by size")
    assert {card["number"]: card["size"] for card in head["clusters"]} == {
        card["number"]: sizes[card["number"]] for card in head["clusters"]
    }
    assert max(card["size"] for card in head["clusters"]) == sizes.max()
    (table,) = found.sections[0].tables
    assert [*table.rows[0][1:3]] == ["5,000", f"{(sizes == 0).sum():,}"]


def test_margins_and_neighbours_agree_with_all_distances() -> None:
    rng = np.random.default_rng(0)
    x, centers = rng.normal(size=(40, 3)), rng.normal(size=(4, 3))
    every = np.linalg.norm(x[:, None] - centers[None], axis=2)
    labels = rng.integers(0, 4, 40)  # as a constraint on sizes may ask for
    found = survey_of(x, centers, labels)
    rows, values, others = margins(found, found.heads[0], np.array([1, 3]))
    assert rows.tolist() == np.flatnonzero((labels == 1) | (labels == 3)).tolist()
    for row, value, other in zip(rows, values, others, strict=True):
        left = np.delete(np.arange(4), labels[row])
        best = left[every[row, left].argmin()]
        assert other == best
        assert value == pytest.approx(every[row, best] - every[row, labels[row]], abs=1e-5)
    between = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(between, np.inf)
    for query, near in zip((3, 17), found.nearest.found(), strict=True):
        assert [row for row, _ in near] == between[query].argsort()[:12].tolist()
        assert [value for _, value in near] == pytest.approx(sorted(between[query])[:12], rel=1e-5)


def survey_of(x: NDArray[Any], centers: NDArray[Any], labels: NDArray[np.int64]) -> Survey:
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", x.astype(np.float64))
        features = open_features(Path(folder) / "x.npy")
        stream = FileFeatures(features, project=None, directed=False, device=torch.device("cpu"))
        found = survey(
            stream,
            [Head(name="K=4", centers=torch.from_numpy(centers), labels=labels)],
            metric="euclidean",
            queries_Q=np.array([3, 17]),
            sample_M=np.array([0, 1]),
            scratch=Path(folder),
            console=QUIET,
        )
        again = list(found.again())
    return replace(found, again=lambda: iter(again))


def test_numbers_of_clusters_by_hand() -> None:
    head = Assigned(
        name="K=4",
        centers=torch.zeros(4, 2),
        labels=np.array([0, 0, 0, 1, 1, 3, -1]),
        distances=np.array([1, 2, 3, 4, 6, 0, np.nan], dtype=np.float32),
    )
    found = stats_of(head, np.array([5, 5, 2, -1, 2, -1, 2]))
    assert found.sizes.tolist() == [3, 2, 0, 1] and found.filled.tolist() == [0, 1, 3]
    assert found.distance[[0, 1, 3]].tolist() == [2, 5, 0] and np.isnan(found.distance[2])
    assert found.purities[:2].tolist() == [pytest.approx(2 / 3), 1] and np.isnan(found.purities[3])
    assert found.top_class.tolist() == [5, 2, -1, -1]
    assert found.purity == pytest.approx(3 / 4), "of four images with a class, three agree"
    assert stats_of(head, None).purity is None


def test_shares_of_heads() -> None:
    assert shares([10, 1000, 3], 60) == [10, 47, 3]
    assert shares([10, 1000, 1000], 60) == [10, 25, 25]
    assert shares([5000], 160) == [160]


@pytest.mark.parametrize("shape", [(50, 4), (4, 50), (30, 1)])
def test_pca_keeps_distances_along_the_main_axes(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    places, explained = pca(x)
    centered = x - x.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    expected = np.pad(left * values, ((0, 0), (0, 1)))[:, :2]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-9)
    assert explained[0] == pytest.approx(values[0] ** 2 / (values**2).sum())
    assert pca(np.ones((5, 3)))[1] == (0.0, 0.0), "identical points have no variance to share"


def test_a_thumbnail_is_the_middle_of_an_image() -> None:
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    small = square(image, 20)
    assert small.size == (20, 20)
    far_off = np.abs(np.asarray(small).astype(int) - [0, 0, 255]).max()
    assert far_off <= 10, "blue, but for the filter's reach at the edges"
    assert square(image, 64).size == (30, 30), "small images are not enlarged"


def test_bad_input_is_one_line(
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    path, of = clustering(tmp_path, x, 2)
    out = tmp_path / "page.html"

    def error(*arguments: object) -> str:
        return fails(monkeypatch, capsys, "report", *arguments, "--out", out, status=2)

    assert "name its features too" in error(path)
    assert "--epoch 3 means nothing for a clustering" in error(path, of.features, "--epoch", 3)
    np.save(tmp_path / "other.npy", x[:10])
    assert "has rows 10, and" in error(path, tmp_path / "other.npy")
    assert "20 rows without ids" in error(path, of.features, "--data", hostile)
    assert "--clusters is 0" in error(path, of.features, "--clusters", 0)
    assert "neither a run" in error(hostile) or "no training run" in error(hostile)
    monkeypatch.setattr("coke.tools.page.sample_map.find_spec", lambda name: None)
    assert "umap-learn" in error(path, of.features, "--umap")
    assert not out.exists()


@pytest.mark.slow
def test_gallery_and_map_are_drawn(hostile: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    report_run(trained, RunImages(data=str(hostile)), FEW, out=out, console=QUIET)
    drawn = screenshot(out, tmp_path, height=3000)
    colours = len(np.unique(drawn.reshape(-1, 3), axis=0))
    assert colours > 2000, "thumbnails of noisy stripes have many colours; text and lines have few"
