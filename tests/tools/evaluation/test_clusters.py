"""``coke eval clusters`` on a run of the tiny data set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from coke.tools.evaluation.clusters import Clusters, eval_clusters
from coke.tools.evaluation.labelled_data import open_one
from coke.tools.evaluation.own_labels import NEAREST, STORED, own_labels, source_of
from coke.tools.evaluation.representations import evaluation_loader
from coke.tools.evaluation.subject import open_subject
from coke.tools.runs.run_folder import RunFolder
from tests.support.eval_report import shown

pytest.importorskip("sklearn", reason="scores of clusters need scikit-learn")
HEADS = ["labels of head 1", "labels of head 2"]


@pytest.mark.slow
def test_the_table_has_k_means_and_the_runs_own_labels(
    run: Path, stripes: Path, quiet: Console
) -> None:
    report = eval_clusters(run, stripes, seeds=2, console=quiet)
    assert list(report.rows) == ["random initialisation", "raw pixels", "CoKe", *HEADS]
    for name, row in report.rows.items():
        figures = {metric: figure.value for metric, figure in row.figures.items()}
        clusters = {HEADS[0]: 3, HEADS[1]: 5}.get(name, 2)
        assert figures["clusters"] == clusters
        assert ("accuracy" in figures) == (clusters == 2), "classes are two"
        assert 0 <= figures["nmi"] <= 1 and 50 <= figures["purity"] <= 100
        assert 0.4 * 60 / clusters - 1 < figures["smallest"] <= figures["largest"] <= 60
        assert (row.figures["nmi"].deviation is None) == (name in HEADS)
    pixels = report.rows["raw pixels"].figures
    assert pixels["accuracy"].value == 100.0 and pixels["accuracy"].deviation == 0.0
    assert pixels["ari"].value == pytest.approx(1.0)
    text = shown(report)
    assert f"images: 60 images of {stripes / 'train'}\n" in text and "test:" not in text
    assert "so it needs as many clusters as classes (2)" in text
    assert "purity and NMI grow with the number of clusters" in text
    saved = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    (record,) = saved.values()
    assert record["settings"]["own_labels"] == STORED and record["settings"]["seeds"] == [0, 1]
    assert record["rows"][HEADS[1]]["clusters"] == 5


def test_labels_of_the_training_images_are_those_of_the_checkpoint(
    run: Path, stripes: Path, quiet: Console
) -> None:
    subject = open_subject(run, stripes, device="cpu", split=None)
    index = subject.splits.train
    assert source_of(subject, index) == STORED
    raw = RunFolder(run).state()["clustering"]["label_store"]["labels"]
    found = own_labels(subject, index, 16, quiet)
    assert [own.n_clusters for own in found] == [3, 5]
    for own, labels in zip(found, raw, strict=True):
        assert own.labels.tolist() == labels.tolist()
    gone = index.without(np.array([0, 7]))
    kept = [i for i in range(60) if i not in (0, 7)]
    part = own_labels(replace(subject, splits=open_one(stripes, None)), gone, 16, quiet)
    assert part[0].labels.tolist() == raw[0][kept].tolist()


def test_other_images_get_the_cluster_of_the_highest_similarity_plus_dual(
    run: Path, stripes: Path, quiet: Console
) -> None:
    """By hand: centers, duals and projected features, without the clustering's own code."""
    subject = open_subject(run, stripes, device="cpu", split="test")
    index = subject.splits.train
    assert source_of(subject, index) == NEAREST and index.n_live == 20
    found = own_labels(subject, index, 7, quiet)
    config, model = subject.config, subject.model.eval()
    recipe = config.data.view.evaluation()
    cpu = torch.device("cpu")
    (batch,) = evaluation_loader(index, config, recipe, 20, cpu).epoch(0)
    with torch.no_grad():
        features_ND = model.projector(model.backbone(batch.views[0]))
        features_ND /= features_ND.norm(dim=1, keepdim=True)
    for own, head in zip(found, RunFolder(run).state()["clustering"]["heads"], strict=True):
        best = (features_ND @ head["centers"].T + head["duals"]).argmax(dim=1)
        assert own.labels.tolist() == best.tolist()


def test_images_that_training_never_saw_are_left_out(
    run: Path, stripes: Path, tmp_path: Path
) -> None:
    file = next(iter(sorted((run / "checkpoints").glob("epoch-*"))[-1].glob("state.pt")))
    state = torch.load(file, weights_only=True)
    labels = state["clustering"]["label_store"]["labels"]
    labels[:, :10] = 255  # never written
    torch.save(state, file)
    with (tmp_path / "out.txt").open("w", encoding="utf-8") as out:
        report = eval_clusters(
            run, stripes, seeds=1, baselines=False, console=Console(file=out, width=200)
        )
    assert "head 1: 10 images have no label" in (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert list(report.rows) == ["CoKe", *HEADS]


def test_settings_and_data_that_cannot_be_used_are_named(
    run: Path, stripes: Path, quiet: Console
) -> None:
    with pytest.raises(ValueError, match="--min-ratio is 1.5; give 0 to 1"):
        eval_clusters(run, stripes, min_ratio=1.5, console=quiet)
    with pytest.raises(ValueError, match="--seeds is 0; give at least 1"):
        Clusters(seeds=0)
    with pytest.raises(ValueError, match="is a single data set; leave out --split test"):
        eval_clusters(run, stripes / "test", split="test", console=quiet)
