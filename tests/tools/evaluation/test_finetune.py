"""``coke eval finetune`` on a run of the tiny data set."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from coke.files.lock import LockFile
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation import tuner
from coke.tools.evaluation.classifier import Cell, Classifier, train_classifier
from coke.tools.evaluation.finetune import FineTune, default_epochs, eval_finetune
from coke.tools.evaluation.report import EvalReport
from coke.tools.evaluation.representations import evaluation_loader
from coke.tools.evaluation.subject import open_subject
from coke.tools.runs.classifier_file import classifiers_of, read_classifier
from coke.tools.runs.interruption import STOPPED_STATUS, RunStopped
from tests.support import command_line
from tests.support.eval_report import shown

TINY: dict[str, Any] = {"lr": [0.1, 0.01], "weight_decay": [0.0], "epochs": 1, "batch_size": 16}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that were trained, in order."""
    cells: list[Cell] = []

    def train(classifier: Classifier, *arguments: Any, **named: Any) -> bool:
        cells.append(arguments[3])
        return train_classifier(classifier, *arguments, **named)

    monkeypatch.setattr(tuner, "train_classifier", train)
    return cells


def figures(report: EvalReport) -> dict[str, Any]:
    return {name: row.record() for name, row in report.rows.items()}


@pytest.mark.slow
def test_the_best_cell_on_held_out_images_is_trained_on_all_and_tested(
    run: Path, stripes: Path, quiet: Console, counted: list[Cell]
) -> None:
    report = eval_finetune(run, stripes, console=quiet, **TINY)
    assert list(report.rows) == ["random initialisation", "CoKe"]
    assert len(counted) == 2 * (2 + 1)
    search = json.loads(next(run.glob("finetune/*/search.json")).read_text(encoding="utf-8"))
    assert search["about"]["settings"]["epochs"] == 1
    for number, (name, row) in enumerate(report.rows.items()):
        trials = [trial for trial in search["trials"] if trial["network"] == name]
        held, final = trials[:2], trials[2]
        best = max(held, key=lambda trial: (trial["top1"], -trial["loss"]))
        assert counted[3 * number + 2].lr == best["lr"] == final["lr"]
        assert final["train_images"] != best["train_images"]
        assert row.chosen["learning rate"] == f"{best['lr']:g}"
        assert row.chosen["held-out top-1 %"] == f"{best['top1']:.2f}"
        assert row.top1 == final["top1"] and row.top5 is None
    assert {trial["lr"] for trial in search["trials"]} == {0.1, 0.01}
    (record,) = json.loads((run / "eval.json").read_text(encoding="utf-8")).values()
    assert record["method"] == "fine-tuned" and record["settings"]["held_out"] == 0.1
    assert record["settings"]["learning_rates"] == [0.1, 0.01]
    assert "raw pixels" not in shown(report) and "learning rate" in shown(report)


@pytest.mark.slow
def test_only_a_trained_network_has_a_faster_head(
    run: Path, stripes: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From scratch, the head is no more random than the rest: ten times its rate would diverge."""
    factors: list[float] = []

    def train(classifier: Classifier, loader: Any, labels: Any, *rest: Any, **named: Any) -> bool:
        factors.append(rest[0].head_factor)
        return True

    monkeypatch.setattr(tuner, "train_classifier", train)
    report = eval_finetune(run, stripes, console=quiet, **(TINY | {"lr": [0.1]}))
    assert list(report.rows) == ["random initialisation", "CoKe"] and factors == [1.0, 10.0]
    assert report.settings["head_factor"] == 10.0
    assert report.settings["head_factor_from_scratch"] == 1.0


@pytest.mark.slow
def test_the_kept_classifier_is_the_one_that_was_tested(
    run: Path, stripes: Path, quiet: Console
) -> None:
    report = eval_finetune(
        run, stripes, baselines=False, console=quiet, **(TINY | {"lr": [0.1], "epochs": 3})
    )
    (path,) = classifiers_of(run)
    found = read_classifier(path)
    assert found.classes == ("horizontal", "vertical")
    assert found.about["top1"] == report.rows["CoKe"].top1 and found.about["lr"] == 0.1
    index, network = ImageIndex(stripes / "test"), found.network()
    config, right = open_subject(run, stripes).config, 0
    with torch.no_grad():
        for batch in evaluation_loader(index, config, found.view, 20, torch.device("cpu")).epoch(0):
            labels = torch.from_numpy(index.labels)[batch.ids]
            right += int((network(batch.views[0]).argmax(dim=1) == labels).sum())
    assert 100 * right / 20 == pytest.approx(report.rows["CoKe"].top1)


@pytest.mark.slow
def test_an_interrupted_search_goes_on_after_every_cell(
    run: Path,
    stripes: Path,
    tmp_path: Path,
    quiet: Console,
    counted: list[Cell],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each attempt finishes one training and is stopped within the next."""
    whole = eval_finetune(run, stripes, console=quiet, **TINY)
    for path in next(run.glob("finetune/*")).iterdir():
        path.unlink()
    all_cells = list(counted)
    counting: Callable[..., bool] = vars(tuner)["train_classifier"]
    for attempt in range(len(all_cells) - 1):
        counted.clear()

        def second_is_stopped(*arguments: Any, **named: Any) -> bool:
            if len(counted) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return counting(*arguments, **named)

        monkeypatch.setattr(tuner, "train_classifier", second_is_stopped)
        with pytest.raises(RunStopped, match=rf"SIGTERM: {attempt + 1} of 6 trainings are kept"):
            eval_finetune(run, stripes, console=quiet, **TINY)
        assert counted == all_cells[attempt : attempt + 2]
    counted.clear()
    monkeypatch.setattr(tuner, "train_classifier", counting)
    assert figures(eval_finetune(run, stripes, console=quiet, **TINY)) == figures(whole)
    assert counted == all_cells[-1:]
    counted.clear()
    assert figures(eval_finetune(run, stripes, console=quiet, **TINY)) == figures(whole)
    assert counted == [], "everything is kept"
    classifiers_of(run)[0].unlink()
    assert figures(eval_finetune(run, stripes, console=quiet, **TINY)) == figures(whole)
    assert len(counted) == 1 and classifiers_of(run), "the classifier is made again"


@pytest.mark.slow
def test_another_cell_of_the_grid_is_the_only_one_trained(
    run: Path, stripes: Path, quiet: Console, counted: list[Cell]
) -> None:
    eval_finetune(run, stripes, baselines=False, console=quiet, **TINY)
    counted.clear()
    more = TINY | {"lr": [0.1, 0.01, 1e25]}
    report = eval_finetune(run, stripes, baselines=False, console=quiet, **more)
    assert counted == [Cell(lr=1e25, weight_decay=0.0)], "it diverged, and is not the best"
    assert report.rows["CoKe"].chosen["learning rate"] in ("0.1", "0.01")
    counted.clear()
    eval_finetune(run, stripes, baselines=False, console=quiet, **(TINY | {"epochs": 2}))
    assert len(counted) == 3, "other settings are another search"


@pytest.mark.slow
def test_the_command_tells_what_is_wrong_in_one_line(
    run: Path, stripes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*options: object) -> str:
        return command_line.fails(
            monkeypatch, capsys, "eval", "finetune", run, stripes, *options, status=2
        )

    assert "lr is 0.0; it must be positive" in fails("--lr", 0)
    assert "weight_decay is -1.0; it must be 0 or positive" in fails("--weight-decay", -1)
    assert "epochs is 0 and batch_size 256" in fails("--epochs", 0)
    few = ("--epochs", 1, "--batch-size", 16, "--no-baselines")
    said = fails("--lr", 1e25, "--lr", 1e26, "--weight-decay", 0, *few)
    assert "CoKe: every training of the grid diverged; give lower learning rates" in said
    one = ("--lr", 1e25, "--weight-decay", 0)
    said = fails(*one, *few)
    assert "CoKe: the training with learning rate 1e+25, weight decay 0 diverged" in said
    lock = LockFile(next(run.glob("finetune/*/lock")))
    assert "is at work on this evaluation" in fails(*one, *few)
    lock.close()
    search = next(run.glob("finetune/*/search.json"))
    search.write_text("{", encoding="utf-8")
    assert "search.json cannot be read" in fails(*one, *few)


@pytest.mark.slow
def test_a_signal_ends_the_command_with_its_own_status(
    run: Path, stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **named: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return train_classifier(*arguments, **named)

    monkeypatch.setattr(tuner, "train_classifier", stopped)
    few = ("--epochs", 1, "--batch-size", 16, "--lr", 0.1, "--weight-decay", 0)
    found = command_line.run(monkeypatch, "eval", "finetune", run, stripes, *few)
    assert found == STOPPED_STATUS
    assert not (run / "eval.json").exists() and not classifiers_of(run)


def test_images_of_which_none_can_be_held_out_need_one_cell(
    run: Path, stripes: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_subject(run, stripes)
    pair = subject.splits.train.without(torch.arange(1, 59).numpy())
    few = replace(subject, splits=replace(subject.splits, train=pair))
    features: Any = type("Features", (), {"subject": few})()
    with pytest.raises(ValueError, match="no class has two images to train on.*one --lr and one"):
        FineTune(run=run, epochs=1).rows(features, quiet)


def test_a_search_says_how_long_remains() -> None:
    assert tuner.time_left([50.0, 70.0], 3) == "; about 3 min for the other 3"
    assert tuner.time_left([50.0, 68.0], 1) == tuner.time_left([50.0], 0) == ""


def test_the_default_is_twenty_thousand_steps_but_at_most_a_hundred_epochs() -> None:
    assert default_epochs(50_000) == 100
    assert default_epochs(1_281_167) == 4
    assert default_epochs(100_000) == 51
    assert default_epochs(10**9) == 1
    assert len(FineTune(run=Path("r")).grid) == 12
