"""A state dict: our own ResNet loads it, and gives the same features."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.resnet import ResNet
from coke.tools.export.export import export
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import open_network
from tests.support.saved_run import saved_run

SETTINGS = ExportSettings(format="torchvision")


@pytest.mark.slow
def test_both_files_give_the_run_s_features_and_say_how_to_load_them(
    tmp_path: Path, tiny: Config, quiet: Console
) -> None:
    model = ModelConfig(depth=18, stem="small", projector_hidden=8, dim=4)
    run = saved_run(tmp_path / "run", replace(tiny, model=model))
    load_file = pytest.importorskip("safetensors.torch").load_file
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = open_network(run).backbone(images)
    for name in ("net.pth", "net.safetensors"):
        out = tmp_path / name
        export(run, out, SETTINGS, console=quiet)
        net = ResNet(depth=18, stem="small").eval()
        safe = name.endswith("safetensors")
        net.load_state_dict(load_file(out) if safe else torch.load(out, weights_only=True))
        assert torch.equal(net(images), expected)
        card = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "net = torchvision.models.resnet18()\n" in card
        assert "torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()\n" in card
        read = f"load_file('{name}')" if safe else f"torch.load('{name}', weights_only=True)"
        assert f"net.load_state_dict({read})" in card


def test_safetensors_is_asked_for_before_work(
    tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch, tiny: Config
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    model = ModelConfig(depth=18, projector_hidden=8, dim=4)
    run = saved_run(tmp_path / "run", replace(tiny, model=model))
    with pytest.raises(ValueError, match=r"pip install 'coke\[safetensors\]'"):
        export(run, tmp_path / "net.safetensors", SETTINGS, console=quiet)
    with pytest.raises(ValueError, match=r"pip install 'coke\[safetensors\]'"):
        export(run, tmp_path / "net", ExportSettings(format="hf"), console=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
