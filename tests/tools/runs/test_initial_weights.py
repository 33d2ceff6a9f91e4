"""Weights to start from: what is taken, what is told, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.tools.runs.checkpoint import load_checkpoint
from coke.tools.runs.initial_weights import load_initial_weights
from coke.tools.training.train import train


@pytest.fixture
def model(tiny: Config) -> CoKe:
    return build_model(tiny.model, seed=1)


def save(path: Path, weights: Any) -> Path:
    torch.save(weights, path)
    return path


def test_a_backbone_by_torchvisions_names(tiny: Config, model: CoKe, tmp_path: Path) -> None:
    other = build_model(tiny.model, seed=2)
    saved = other.backbone.state_dict() | {
        "fc.weight": torch.zeros(5, 8),
        "fc.bias": torch.zeros(5),
    }
    projector = {n: v.clone() for n, v in model.projector.state_dict().items()}
    taken = load_initial_weights(model, save(tmp_path / "weights.pth", saved))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, other.backbone.state_dict()[name]), name
    for name, value in model.projector.state_dict().items():
        assert torch.equal(value, projector[name]), name
    assert taken.loaded == [f"backbone.{name}" for name in other.backbone.state_dict()]
    assert taken.missing == [f"projector.{name}" for name in projector]
    assert taken.unused == ["fc.weight", "fc.bias"] and taken.misfits == []
    assert taken.lines()[0] == f"weights: {len(taken.loaded)} tensors from {tmp_path}/weights.pth"
    assert "  not used: fc.weight, fc.bias" in taken.lines()
    assert any(line.startswith("  stay random: projector.0.weight") for line in taken.lines())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_wrapped_as_others_save_it(
    tiny: Config, model: CoKe, tmp_path: Path, prefix: str, key: str | None
) -> None:
    whole = build_model(tiny.model, seed=2).state_dict()
    saved: Any = {prefix + name: value for name, value in whole.items()}
    source = save(tmp_path / "w.pt", saved if key is None else {key: saved, "epoch": 3})
    taken = load_initial_weights(model, source)
    assert taken.missing == taken.unused == taken.misfits == []
    assert all(torch.equal(v, whole[n]) for n, v in model.state_dict().items())


def test_other_shapes_stay_random_and_are_told(tiny: Config, tmp_path: Path) -> None:
    other = build_model(replace(tiny.model, stem="imagenet"), seed=2)
    model = build_model(tiny.model, seed=1)
    taken = load_initial_weights(model, save(tmp_path / "w.pt", other.state_dict()))
    assert taken.misfits == ["backbone.conv1.weight: (8, 3, 7, 7) != (8, 3, 3, 3)"]
    assert taken.missing == [] and "backbone.conv1.weight" not in taken.loaded


def test_a_run_a_checkpoint_and_its_file(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console
) -> None:
    run = tmp_path / "run"
    train(
        tiny.changed(optimizer={"epochs": 1}, data={"loader": "pil"}), stripes, run, console=quiet
    )
    trained = load_checkpoint(run / "checkpoints" / "latest")["model"]
    checkpoint = run / "checkpoints" / "epoch-0001"
    for source in (run, checkpoint, checkpoint / "state.pt"):
        model = build_model(tiny.model, seed=1)
        assert load_initial_weights(model, source).missing == []
        assert all(torch.equal(v, trained[n]) for n, v in model.state_dict().items()), source
    second = tmp_path / "second"
    config = replace(tiny, seed=5).changed(optimizer={"epochs": 1}, data={"loader": "pil"})
    train(config, stripes, second, init_from=run, console=quiet)
    about = json.loads((second / "initial_weights.json").read_text(encoding="utf-8"))
    assert about["source"] == str(run) and len(about["loaded"]) == len(trained)
    scanned = load_checkpoint(second / "checkpoints" / "epoch-0000")["model"]
    for name, _ in build_model(tiny.model, seed=1).named_parameters():
        assert torch.equal(scanned[name], trained[name]), "the scan moves no weights"
    with pytest.raises(ValueError, match="--init-from starts a new run, --resume continues one"):
        train(config, stripes, second, init_from=run, resume=True, console=quiet)


def test_what_cannot_be_used_is_named(model: CoKe, tmp_path: Path) -> None:
    def error(source: Path) -> str:
        before = {n: v.clone() for n, v in model.state_dict().items()}
        with pytest.raises(ValueError, match="--init-from|nothing in") as raised:
            load_initial_weights(model, source)
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
        return str(raised.value)

    assert "there is no" in error(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("text", encoding="utf-8")
    assert "cannot be read as weights" in error(tmp_path / "text.pt")
    assert "holds no tensors by name" in error(save(tmp_path / "list.pt", [1, 2]))
    line = error(save(tmp_path / "vit.pt", {"blocks.0.attn.qkv.weight": torch.zeros(9, 3)}))
    assert "nothing in" in line and "blocks.0.attn.qkv.weight" in line
    assert "backbone.conv1.weight" in line and "model.depth" in line
    wide = save(tmp_path / "wide.pt", {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    assert "backbone.conv1.weight: (64, 3, 3, 3) != (8, 3, 3, 3)" in error(wide)
