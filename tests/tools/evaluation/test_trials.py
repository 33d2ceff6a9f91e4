"""Finished trainings on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coke.tools.evaluation.classifier import Cell
from coke.tools.evaluation.trials import Key, Trial, Trials

KEY = Key(
    network="CoKe",
    weights_sha256="ab",
    train_images="12",
    test_images="34",
    cell=Cell(lr=0.1, weight_decay=1e-5),
)
TRIAL = Trial(key=KEY, top1=61.5, top5=None, loss=1.25, seconds=3.0)


def test_what_was_added_is_there_for_the_next_process(tmp_path: Path) -> None:
    diverged = replace(
        TRIAL, key=replace(KEY, cell=Cell(lr=1.0, weight_decay=0.0)), top1=None, loss=None
    )
    trials = Trials(tmp_path / "search.json", {"epochs": 2})
    trials.add(TRIAL)
    trials.add(diverged)
    again = Trials(tmp_path / "search.json", {"epochs": 2})
    assert len(again) == 2
    assert again.get(KEY) == TRIAL and again.get(diverged.key) == diverged
    for other in (
        replace(KEY, network="other"),
        replace(KEY, weights_sha256="other"),
        replace(KEY, train_images="other"),
        replace(KEY, test_images="other"),
    ):
        assert again.get(other) is None
    assert again.get(replace(KEY, cell=Cell(lr=0.1, weight_decay=0.0))) is None


def test_the_best_has_the_highest_top1_and_of_equals_the_lowest_loss() -> None:
    better = replace(TRIAL, top1=62.0, loss=9.0)
    equal = replace(TRIAL, loss=1.0)
    diverged = replace(TRIAL, top1=None, loss=None)
    wrong = replace(TRIAL, top1=0.0, loss=50.0)
    ranked = sorted([TRIAL, better, diverged, equal, wrong], key=lambda trial: trial.rank)
    assert ranked == [diverged, wrong, TRIAL, equal, better]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"trials": [{"lr": 1}]}', '{"trials": [{"lr": 1, "x": 2}]}']
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "search.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"search.json cannot be read \(.*\); move it away, and"):
        Trials(tmp_path / "search.json", {})
