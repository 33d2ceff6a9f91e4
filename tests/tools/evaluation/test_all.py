"""``coke eval all``: each evaluation once, one table, nothing twice."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coke.tools.evaluation import all as everything
from coke.tools.evaluation import representations
from coke.tools.evaluation.all import eval_all
from coke.tools.evaluation.finetune import eval_finetune
from coke.tools.evaluation.knn import Knn, eval_knn

pytest.importorskip("sklearn", reason="scores of clusters need scikit-learn")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets that features were computed of, in order."""
    found: list[str] = []
    extract = representations.extract

    def counted(index: Any, *rest: Any, **named: Any) -> Any:
        found.append(index.folder.name)
        return extract(index, *rest, **named)

    monkeypatch.setattr(representations, "extract", counted)
    return found


def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def text_of(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def records(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_features_are_computed_once_and_results_are_not_measured_twice(
    run: Path, stripes: Path, passes: list[str]
) -> None:
    eval_knn(run, stripes, baselines=False, console=console())
    before = records(run)
    assert passes == ["train", "test"]
    first = console()
    reports = eval_all(run, stripes, baselines=False, console=first)
    assert passes == ["train", "test"] * 2, "once for all evaluations but k-NN"
    assert [report.method for report in reports] == [
        "knn",
        "linear (fast)",
        "low-shot 10 % (6 images)",
        "clusters",
    ]
    assert "low-shot 1 % is left out: fraction 0.01 of the 60" in text_of(first)
    assert "fine-tuning is left out: it trains each network 13 times" in text_of(first)
    kept = records(run)
    assert before.items() <= kept.items(), "k-NN is not measured again"
    assert len(kept) == len(reports)

    second = console()
    again = eval_all(run, stripes, baselines=False, console=second)
    assert passes == ["train", "test"] * 2 and records(run) == kept
    for a, b in zip(reports, again, strict=True):
        assert (a.method, a.rows) == (b.method, b.rows)
    table = text_of(first).partition("all evaluations")[2]
    assert table and table == text_of(second).partition("all evaluations")[2]
    assert text_of(first).count(f"images of {stripes / 'test'}") == 1
    assert text_of(second).count("measured before") == len(reports)

    eval_all(run, stripes, again=True, baselines=False, console=console())
    assert passes == ["train", "test"] * 3
    assert list(records(run)) == list(kept)


def test_what_cannot_be_measured_is_left_out_with_its_reason(
    run: Path, stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise ValueError("no such thing")

    step = everything._Step(name="a", make=refuse)
    knn = everything._Step(name="k-NN", make=Knn)
    out = console()
    monkeypatch.setattr(everything, "_steps", lambda *_: [step, knn])
    (report,) = eval_all(run, stripes, baselines=False, console=out)
    assert report.method == "knn"
    assert "warning: a is left out: no such thing" in text_of(out)
    monkeypatch.setattr(everything, "_steps", lambda *_: [step])
    with pytest.raises(ValueError, match="no such thing"):
        eval_all(run, stripes, baselines=False, console=out)


@pytest.mark.slow
def test_the_newest_fine_tuning_is_in_the_table(
    run: Path, stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "_steps", lambda *_: [everything._Step(name="a", make=Knn)])
    for epochs in (1, 2):
        eval_finetune(run, stripes, lr=[0.1], weight_decay=[0], epochs=epochs, console=console())
    out = console()
    reports = eval_all(run, stripes, console=out)
    assert [report.method for report in reports] == ["knn", "fine-tuned"]
    assert reports[1].settings["epochs"] == 2
    assert reports[1].rows["CoKe"].record() == [*records(run).values()][1]["rows"]["CoKe"]
    other = eval_all(run, stripes, size=24, console=out)
    assert [report.method for report in other] == ["knn"], "another size is another result"
