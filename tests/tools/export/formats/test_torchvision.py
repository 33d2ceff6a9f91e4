"""The state dict for torchvision: our own ResNet loads it, and gives the same features."""

from __future__ import annotations

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

RESNET18 = ModelConfig(depth=18, projector_hidden=8, dim=4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_file_gives_the_run_s_features(
    tmp_path: Path, tiny: Config, quiet: Console, suffix: str
) -> None:
    run = saved_run(tmp_path / "run", replace(tiny, model=RESNET18))
    out = tmp_path / f"net{suffix}"
    export(run, out, ExportSettings(format="torchvision"), console=quiet)
    if suffix == ".pth":
        state = torch.load(out, weights_only=True)
    else:
        state = pytest.importorskip("safetensors.torch").load_file(out)
    net = ResNet(depth=18).eval()
    net.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = open_network(run).backbone(images)
    assert torch.equal(net(images), expected)


def test_the_lines_that_load_it(tmp_path: Path, tiny: Config, quiet: Console) -> None:
    model = replace(RESNET18, stem="small")
    run = saved_run(tmp_path / "run", replace(tiny, model=model))
    export(run, tmp_path / "net.pth", ExportSettings(format="torchvision"), console=quiet)
    card = (tmp_path / "net.pth.md").read_text(encoding="utf-8")
    assert "net = torchvision.models.resnet18()\n" in card
    assert "torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()\n" in card
    assert "net.load_state_dict(torch.load('net.pth', weights_only=True))" in card


def test_what_torchvision_has_not_is_refused(tmp_path: Path, tiny: Config, quiet: Console) -> None:
    run = saved_run(tmp_path / "run", replace(tiny, model=replace(tiny.model, expand=64)))
    with pytest.raises(ValueError, match="no ResNet of torchvision") as error:
        export(run, tmp_path / "a" / "net.pth", ExportSettings(format="torchvision"), console=quiet)
    for difference in ("its depth is 10, not one of 18, 34", "its width is 8, not 64", "is 64)"):
        assert difference in str(error.value)
    assert not (tmp_path / "a").exists()
