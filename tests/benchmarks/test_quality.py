"""The quality table compares runs of equal settings and says which orders of methods held."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import quality
from coke.config.config import Config
from coke.config.overrides import differences
from coke.model.coke_model import build_model
from coke.tools.bench.peers.peer import Peer
from coke.tools.runs.run_folder import RunFolder


def changed(method: str, other: str) -> list[str]:
    a, b = (quality.config_of(name, 4, 64, 1) for name in (method, other))
    return [line.split(":")[0] for line in differences(a, b)]


def test_methods_differ_only_in_what_their_names_say() -> None:
    assert changed("coke", "ratio-0.4") == ["clustering.min_ratio"]
    assert changed("coke", "coke-as-many-views") == ["optimizer.epochs"]
    assert changed("coke", "coke-2views") == ["preset", "data.views", "loss.alpha_warmup"]
    for peer in quality.PEERS:
        assert changed("coke-2views", peer) == []
    assert quality.config_of("coke-as-many-views", 4, None, 0).optimizer.epochs == 8


def test_orders_that_held_and_did_not() -> None:
    def score(linear: float) -> quality.Score:
        return quality.Score(knn=0, linear=linear, views=1, minutes=0)

    # At 50 % a standard error is 0.5, that of a difference 0.707.
    scores = {
        "ratio-0.4": [score(52)],
        "coke": [score(49), score(51)],
        "ratio-0": [score(51.5)],
        "swav": [score(50)],
        "coke-as-many-views": [score(45)],
    }
    assert list(quality.orders(scores)) == [
        "coke-as-many-views >= swav: did not hold (-5.00 points, error 1.41, linear)",
        "ratio-0.4 >= coke: held (+2.00 points, error 1.41, linear)",
        "coke >= ratio-0: did not hold (-1.50 points, error 1.41, linear)",
    ]
    scores["ratio-0"] = [score(50.5)]
    assert list(quality.orders(scores))[-1].startswith("coke >= ratio-0: undecided (-0.50 ")


@pytest.mark.slow
@pytest.mark.parametrize("method", quality.PEERS)
def test_a_trained_peer_is_a_run_that_evaluates(
    method: str, stripes: Path, tiny: Config, tmp_path: Path
) -> None:
    config = tiny.changed(data={"views": 2, "second_view": tiny.data.view}, optimizer={"epochs": 1})
    quality.train_peer(method, config, stripes, tmp_path / "run")
    state = RunFolder(tmp_path / "run").state()
    assert state["epoch"] == 1
    start = build_model(config.model, config.seed).state_dict()
    name = "backbone.conv1.weight"
    assert not torch.equal(state["model"][name], start[name])
    knn, linear = quality._evaluated(tmp_path / "run", stripes, 1)
    assert 0 <= knn <= 100 and 0 <= linear <= 100


def test_methods_may_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def options(*arguments: str) -> argparse.Namespace:
        monkeypatch.setattr(sys, "argv", ["quality.py", *arguments])
        return quality._options()

    assert options("--methods", "coke,swav:3", "--seeds", "2").methods == {"coke": 2, "swav": 3}
    assert set(options().methods) == set(quality.METHODS)
    for wrong in (("--methods", "coke:0"), ("--methods", "byol"), ("--jobs", "0")):
        with pytest.raises(SystemExit):
            options(*wrong)


@pytest.mark.slow
def test_a_peer_that_diverges_is_no_result(
    stripes: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peer, "step", lambda *_: torch.tensor(float("nan")))
    config = tiny.changed(data={"views": 2, "second_view": tiny.data.view}, optimizer={"epochs": 1})
    with pytest.raises(ValueError, match="simclr diverged in epoch 1: its loss is nan"):
        quality.train_peer("simclr", config, stripes, tmp_path / "run")
