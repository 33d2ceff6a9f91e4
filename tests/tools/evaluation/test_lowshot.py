"""``coke eval lowshot`` on a run of the tiny data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.few_images import few_images
from coke.tools.evaluation.logistic import fit_logistic
from coke.tools.evaluation.lowshot import eval_lowshot
from coke.tools.evaluation.representations import cache_features
from coke.tools.evaluation.subset import class_balanced
from tests.support import command_line
from tests.support.eval_report import shown

METHOD = "low-shot 10 % (6 images)"


@pytest.mark.slow
def test_three_choices_of_images_have_a_mean_and_a_deviation(
    run: Path, stripes: Path, quiet: Console
) -> None:
    (report,) = eval_lowshot(run, stripes, fractions=[0.1], console=quiet)
    assert report.method == METHOD
    assert list(report.rows) == ["random initialisation", "raw pixels", "CoKe"]
    index = ImageIndex(stripes / "train")
    subsets = report.settings["subsets"]
    assert [(s["name"], s["images"]) for s in subsets] == [(f"seed {i}", 6) for i in range(3)]
    assert len({s["ids_sha256"] for s in subsets}) == 3
    features = cache_features(run, stripes, console=quiet)
    labels, tested = (torch.from_numpy(i.labels) for i in (index, ImageIndex(stripes / "test")))
    for name, row in report.rows.items():
        penalties = [float(p) for p in row.chosen["penalty"].split(", ")]
        top1 = []
        for seed, penalty in enumerate(penalties):
            ids = torch.from_numpy(class_balanced(index, 0.1, seed))
            (model,) = fit_logistic(features.train[name][ids], labels[ids], 2, [penalty])
            right = model.scores(features.test[name]).argmax(dim=1) == tested
            top1.append(100 * float(right.double().mean()))
        figure = row.figures["top1"]
        assert figure.value == pytest.approx(np.mean(top1)) and figure.seeds == 3
        assert figure.deviation == pytest.approx(np.std(top1, ddof=1))
    assert METHOD in shown(report) and " ± " in shown(report)
    (record,) = json.loads((run / "eval.json").read_text(encoding="utf-8")).values()
    assert record["method"] == METHOD and record["train_images"] == 60


@pytest.mark.slow
def test_features_of_some_images_are_those_of_all(run: Path, stripes: Path, quiet: Console) -> None:
    ids = np.array([3, 17, 40, 59])
    features = cache_features(run, stripes, console=quiet)
    few = features.of_some(ids)
    assert "train" not in features.__dict__, "the others are not computed"
    for name, train_ND in features.train.items():
        assert torch.allclose(few[name], train_ND[ids], atol=1e-5)
        assert torch.equal(features.of_some(ids)[name], train_ND[ids])


@pytest.mark.slow
def test_published_lists_are_averaged_by_their_size(
    run: Path, stripes: Path, tmp_path: Path, quiet: Console
) -> None:
    written = tmp_path / "lists"
    first = eval_lowshot(
        run, stripes, fractions=[0.1], seeds=2, write_ids=written, baselines=False, console=quiet
    )
    files = [written / f"6-images-seed-{seed}.txt" for seed in range(2)]
    assert sorted(written.iterdir()) == files
    (tmp_path / "pair.txt").write_text("0\n59\n", encoding="utf-8")
    again = eval_lowshot(
        run, stripes, ids=[*files, tmp_path / "pair.txt"], baselines=False, console=quiet
    )
    assert [report.method for report in again] == [METHOD, "low-shot 3.33 % (2 images)"]
    hashes = [[s["ids_sha256"] for s in r.settings["subsets"]] for r in (first[0], again[0])]
    assert hashes[0] == hashes[1]
    assert again[0].rows["CoKe"].record() == first[0].rows["CoKe"].record()
    assert again[1].rows["CoKe"].chosen["penalty"] == "0.1", "nothing can be held out"
    assert again[1].rows["CoKe"].figures["top1"].deviation is None


@pytest.mark.slow
def test_fine_tuning_has_a_report_of_its_own_and_is_kept(
    run: Path, stripes: Path, quiet: Console
) -> None:
    options: dict[str, Any] = {"fractions": [0.2], "finetune": True, "console": quiet}
    options |= {"lr": [0.1, 0.01], "epochs": 1}
    frozen, tuned = eval_lowshot(run, stripes, **options)
    assert tuned.method == f"{frozen.method}, fine-tuned" == "low-shot 20 % (12 images), fine-tuned"
    assert list(tuned.rows) == ["random initialisation", "CoKe"]
    assert len(frozen.settings["subsets"]) == 3 and len(tuned.settings["subsets"]) == 1
    assert (tuned.settings["batch_size"], tuned.settings["weight_decays"]) == (16, [0.0])
    (kept,) = run.glob("lowshot/*/search.json")
    trials = json.loads(kept.read_text(encoding="utf-8"))["trials"]
    assert len(trials) == 2 * 3 and not list(run.glob("lowshot/*/model.pt"))
    _, again = eval_lowshot(run, stripes, **options)
    assert {n: r.record() for n, r in again.rows.items()} == {
        n: r.record() for n, r in tuned.rows.items()
    }
    assert json.loads(kept.read_text(encoding="utf-8"))["trials"] == trials


def test_subsets_come_by_fraction_or_from_lists(stripes: Path, tmp_path: Path) -> None:
    index = ImageIndex(stripes / "train")
    groups = few_images(index, [0.5, 0.1, 0.5], [], None)
    assert [g.name for g in groups] == ["50 % (30 images)", "10 % (6 images)"]
    assert [len(g.subsets) for g in groups] == [3, 3]
    (tmp_path / "a.txt").write_text("0\n59\n", encoding="utf-8")
    for arguments, message in (
        (([0.1], [tmp_path / "a.txt"], None), "leave out --fraction"),
        (([], [tmp_path / "a.txt"], 3), "leave out --seeds"),
        (([], [], 0), "seeds is 0; choose at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            few_images(index, *arguments)
    with pytest.raises(ValueError, match=r"is 0 images for 2 classes.*works is 0.0334$"):
        few_images(index, [], [], None)


@pytest.mark.slow
def test_the_command_tells_what_is_wrong_in_one_line(
    run: Path,
    stripes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*options: object) -> str:
        return command_line.fails(
            monkeypatch, capsys, "eval", "lowshot", run, stripes, *options, status=2
        )

    assert "the smallest fraction that works is 0.0334" in fails("--fraction", 0.01)
    assert "fraction is 2.0; give a share" in fails("--fraction", 2)
    assert "--lr, --weight-decay, --epochs and --batch-size are for --finetune" in fails("--lr", 1)
    (tmp_path / "mine.txt").write_text("no such image\n", encoding="utf-8")
    assert "line 1: 'no such image' is no key" in fails("--ids", tmp_path / "mine.txt")
    (tmp_path / "6-images-seed-0.txt").write_text("", encoding="utf-8")
    some = ("--fraction", 0.1, "--write-ids")
    assert "6-images-seed-0.txt exists; name another folder" in fails(*some, tmp_path)
    assert "cannot be written" in fails(*some, tmp_path / "mine.txt" / "folder")
