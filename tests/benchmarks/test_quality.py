"""The quality grid compares trainings of equal settings, and keeps what it has measured."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.quality import __main__ as command
from benchmarks.quality import page, record, training
from benchmarks.quality.grid import FORMS, METHODS, OPTIONS, Cell, config_of
from coke.config.config import Config
from coke.config.overrides import differences
from coke.model.coke_model import build_model
from coke.tools.bench.peers.peer import Peer
from coke.tools.evaluation.representations import cache_features
from coke.tools.runs.run_folder import RunFolder


def cell(method: str, seed: int = 0) -> Cell:
    return Cell(method=method, images=10_000, epochs=20, seed=seed)


def changed(method: str, other: str) -> set[str]:
    a, b = (config_of(cell(name)) for name in (method, other))
    return {line.split(":")[0] for line in differences(a, b)}


def test_methods_differ_only_in_what_their_names_say() -> None:
    assert changed("one-view", "ratio-0.4") == {"clustering.min_ratio"}
    assert changed("ratio-0.4", "ratio-0.4-max-3") == {"clustering.max_ratio"}
    assert changed("one-view", "one-view-twice") == {"optimizer.epochs"}
    assert changed("one-view", "two-views") == {"preset", "data.views", "loss.alpha_warmup"}
    assert changed("two-five", "two-five-lr-0.1") == {"optimizer.lr"}
    for peer in training.PEERS:
        assert changed("two-views", peer) == set()
    for option in OPTIONS:
        sections = {name.split(".")[0] for name in changed("two-five", option)}
        assert len(sections) == 1, option


def test_every_method_has_settings_and_a_title_of_its_own() -> None:
    configs = [config_of(cell(name)) for name in METHODS]
    assert configs[0].clustering.n_clusters == (100, 200)
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def scored(method: str, seed: int, right: list[int]) -> record.Record:
    hits = record.packed(np.array(right, dtype=bool))
    return record.Record(
        method=method,
        images=10_000,
        epochs=20,
        seed=seed,
        knn=100 * float(np.mean(right)),
        linear=100 * float(np.mean(right)),
        knn_hits=hits,
        linear_hits=hits,
        test_images=len(right),
        views=40,
        steps=1560,
        cpu_seconds=60.0,
        cpu="a CPU",
        date="2026-01-02",
    )


def test_a_difference_is_paired_by_hand() -> None:
    """Ten images: two that only the first gets right, one that only the second does."""
    a = scored("two-five", 0, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    b = scored("simclr", 0, [1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    found = record.difference([a], [b, scored("simclr", 1, [0] * 10)], "knn")
    assert found is not None and found.seeds == 1
    assert found.gain == pytest.approx(10)
    # Gaps: +1 twice, -1 once, 0 seven times; their mean is 0.1.
    variance = (3 - 10 * 0.1**2) / 9 / 10
    assert found.error == pytest.approx(100 * math.sqrt(variance))
    assert str(found) == "+10.0 ± 18.0"


def test_seeds_that_differ_add_to_the_error() -> None:
    """Gains of +20 and 0 points: the seeds' standard error is 10 points."""
    none, some = [0] * 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    a = [scored("two-five", 0, some), scored("two-five", 1, none)]
    b = [scored("simclr", 0, none), scored("simclr", 1, none)]
    found = record.difference(a, b, "linear")
    assert found is not None and found.seeds == 2
    assert found.gain == pytest.approx(10)
    # Mean gaps per image: 0.5 twice, 0 eight times.
    images = (2 * 0.5**2 - 10 * 0.1**2) / 9 / 10
    assert found.error == pytest.approx(100 * math.sqrt(images + 0.1**2))
    assert record.difference(a[:1], b[1:], "linear") is None


def test_the_page_has_a_row_for_each_method_with_records(tmp_path: Path) -> None:
    for kept in (scored("simclr", 0, [1, 0, 1, 0]), scored("two-five", 0, [1, 1, 1, 0])):
        record.keep(kept, tmp_path)
    records = record.records_in(tmp_path)
    steps = {"seconds": {"simclr": 2.0, "two-five": 3.0}, "rounds": 5, "cpu": "c", "date": "d"}
    text = "Text.\n<!-- table: forms -->\nold\n<!-- end -->\nMore."
    written = page.with_tables(text, records, steps, images=10_000, epochs=20)
    assert written.startswith(
        "Text.\n<!-- table: forms -->\n| method | views | compute | CPU min |"
    )
    assert "| SimCLR | 40 | 1.00 | 1.0 | 0 | 50.0 | 50.0 | – | – |\n" in written
    row = "| CoKe, two views, five heads | 40 | 1.50 | 1.0 | 0 | 75.0 | 75.0 | +25.0 ± 25.0 |"
    assert row in written
    assert "Trained: 2026-01-02, a CPU. No records yet: MoCo-v2; SwAV;" in written
    assert "old" not in written and written.endswith("<!-- end -->\nMore.")
    again = page.with_tables(written, records, steps, images=10_000, epochs=20)
    assert again == written
    other = page.with_tables(text, records, {}, images=10_000, epochs=10)
    assert "No records yet." in other
    with pytest.raises(ValueError, match="a table 'fomrs'; there are steps, forms, ratios"):
        page.with_tables(text.replace("forms", "fomrs"), records, {}, images=1, epochs=1)


def test_cells_with_a_record_are_not_trained_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def options(*arguments: str) -> argparse.Namespace:
        monkeypatch.setattr(sys, "argv", ["quality", *arguments])
        return command._options()

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    asked = options("--methods", "simclr,two-five:3", "--seeds", "2")
    assert asked.methods == {"simclr": 2, "two-five": 3}
    record.keep(scored("simclr", 1, [1]), tmp_path)
    left = [(found.method, found.seed) for found in command.cells_of(asked)]
    assert left == [("simclr", 0), ("two-five", 0), ("two-five", 1), ("two-five", 2)]
    assert set(options().methods) == set(METHODS)
    for wrong in (("--methods", "coke:0"), ("--methods", "byol"), ("--jobs", "0")):
        with pytest.raises(SystemExit):
            options(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("method", training.PEERS)
def test_a_trained_peer_is_a_run_that_evaluates(
    method: str, stripes: Path, tiny: Config, tmp_path: Path
) -> None:
    config = tiny.changed(data={"views": 2, "second_view": tiny.data.view}, optimizer={"epochs": 1})
    training.train_peer(method, config, stripes, tmp_path / "run")
    state = RunFolder(tmp_path / "run").state()
    assert state["epoch"] == 1
    start = build_model(config.model, config.seed).state_dict()
    name = "backbone.conv1.weight"
    assert not torch.equal(state["model"][name], start[name])
    quiet = Console(quiet=True)
    features = cache_features(tmp_path / "run", stripes, epoch=1, baselines=False, console=quiet)
    knn_M, linear_M = training.hits_of(features)
    assert knn_M.shape == linear_M.shape == (features.subject.splits.test.n_live,)
    seen = record.packed(knn_M)
    training._trained_peer(method, config, stripes, tmp_path / "run")  # there: not trained again
    features = cache_features(tmp_path / "run", stripes, epoch=1, baselines=False, console=quiet)
    assert record.packed(training.hits_of(features)[0]) == seen


@pytest.mark.slow
def test_a_peer_that_diverges_is_no_result(
    stripes: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peer, "step", lambda *_: torch.tensor(float("nan")))
    config = tiny.changed(data={"views": 2, "second_view": tiny.data.view}, optimizer={"epochs": 1})
    with pytest.raises(ValueError, match="simclr diverged in epoch 1: its loss is nan"):
        training.train_peer("simclr", config, stripes, tmp_path / "run")


def test_forms_are_compared_with_simclr() -> None:
    methods, base = page.TABLES["forms"]
    assert base == "simclr" and [*FORMS, "instance-0.5"] == list(methods)
