"""Runs, checkpoints and files of weights that a run is compared with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.tools.evaluation.against import Rival, open_rival
from coke.tools.evaluation.contestants import contestants
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.networks import hash_of_weights, load_run


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def features(rival: Rival, images: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = rival.backbone.eval()(images)
    return found


def test_a_run_and_its_checkpoints(run: Path, tiny: Config, images: torch.Tensor) -> None:
    model = load_run(run)[1].eval()
    first = load_run(run, 0)[1].eval()
    with torch.no_grad():
        expected, before = model.backbone(images), first.backbone(images)
    assert torch.equal(features(open_rival(run, tiny), images), expected)
    checkpoint = run / "checkpoints" / "epoch-0000"
    for source in (checkpoint, checkpoint / "state.pt"):
        rival = open_rival(source, tiny)
        assert torch.equal(features(rival, images), before)
        assert rival.weights_sha256 == hash_of_weights(first.backbone)


def test_a_run_has_its_own_network_and_normalisation(
    run: Path, tiny: Config, images: torch.Tensor
) -> None:
    """Pixels are the same for both; the other run sees them with its own mean and deviation."""
    view = replace(tiny.data.view, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    deeper = replace(tiny.model, depth=18)
    config = replace(tiny, model=deeper).changed(data={"view": view})
    own = tiny.data.view
    pixels = images * torch.tensor(own.std).view(3, 1, 1) + torch.tensor(own.mean).view(3, 1, 1)
    given = (pixels - torch.tensor(view.mean).view(3, 1, 1)) / torch.tensor(view.std).view(3, 1, 1)
    rival = open_rival(run, config)
    plain = features(open_rival(run, tiny), images)
    torch.testing.assert_close(features(rival, given), plain, rtol=1e-4, atol=1e-5)
    assert rival.dim == plain.shape[1]


def test_a_file_may_hold_another_resnet(tmp_path: Path, tiny: Config, images: torch.Tensor) -> None:
    other = replace(tiny.model, depth=18, width=16, expand=24)
    model = build_model(other, 3).eval()
    torch.save({"state_dict": model.backbone.state_dict()}, tmp_path / "other.pth")
    rival = open_rival(tmp_path / "other.pth", tiny)
    with torch.no_grad():
        assert torch.equal(features(rival, images), model.backbone(images))
    assert rival.dim == 24


def test_what_cannot_be_compared_is_named_by_its_option(tmp_path: Path, tiny: Config) -> None:
    with pytest.raises(ValueError, match=r"^--against \S*nothing.pt: there is no \S*nothing.pt"):
        open_rival(tmp_path / "nothing.pt", tiny)
    state = build_model(tiny.model, 0).backbone.state_dict()
    part = {name: value for name, value in state.items() if "running" not in name}
    torch.save(part, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=r"^--against \S*part.pt: not all of its backbone .*bn1"):
        open_rival(tmp_path / "part.pt", tiny)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"^--against \S*folder: the folder holds no config.toml"):
        open_rival(tmp_path / "folder", tiny)


def test_contestants_give_networks_of_their_own(run: Path, tiny: Config) -> None:
    config, model, _ = load_run(run)
    rival = open_rival(run / "checkpoints" / "epoch-0000", config)
    found = contestants(config, model, baselines=True, rivals=(rival,))
    names = ["random initialisation", f"against {rival.source}", "CoKe"]
    assert [c.name for c in found] == names
    assert [c.trained for c in found] == [False, True, True]
    for contestant in found:
        a, b = contestant.make_backbone(), contestant.make_backbone()
        assert hash_of_weights(a) == hash_of_weights(b)
        with torch.no_grad():
            next(a.parameters()).zero_()
        assert hash_of_weights(a) != hash_of_weights(b), "one does not change the other"
    assert hash_of_weights(found[2].make_backbone()) == hash_of_weights(model.backbone)
    assert [c.name for c in contestants(config, model, baselines=False)] == ["CoKe"]


@pytest.mark.slow
def test_the_table_and_the_record_name_them(
    run: Path, stripes: Path, tmp_path: Path, quiet: Console
) -> None:
    earlier = run / "checkpoints" / "epoch-0000"
    plain = eval_knn(run, stripes, console=quiet)
    report = eval_knn(run, stripes, against=[earlier, earlier], size=24, console=quiet)
    name = f"against {earlier}"
    assert list(report.rows) == ["random initialisation", "raw pixels", name, "CoKe"]
    assert report.settings["against"] == {
        name: open_rival(earlier, load_run(run)[0]).weights_sha256
    }
    assert (plain.settings["size"], report.settings["size"]) == (16, 24)
    assert "against" not in plain.settings, "records of earlier versions stay equal"
    saved = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert len(saved) == 2 and name in [*saved.values()][1]["rows"]
    with pytest.raises(ValueError, match="--size is 4; it is in pixels and at least 8"):
        eval_knn(run, stripes, size=4, console=quiet)
