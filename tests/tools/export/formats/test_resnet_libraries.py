"""ResNets as torchvision, timm and transformers have them: names, shapes and features.

``resnet_names.json`` was recorded from these libraries; see ``tests/golden/README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.resnet import ResNet
from coke.tools.export.export import export
from coke.tools.export.formats.hf_resnet import config_of, name_of, tensors_of
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import open_network
from coke.tools.runs.weight_names import NAMES
from tests.support.card_code import code_of, loaded
from tests.support.numbered_weights import numbered, picture
from tests.support.other_library import other_library
from tests.support.saved_run import saved_run

GOLDEN = json.loads(
    (Path(__file__).parents[3] / "golden" / "resnet_names.json").read_text(encoding="utf-8")
)
LIBRARIES = ("torchvision", "timm", "transformers")


def as_library(library: str, net: ResNet) -> Mapping[str, Tensor]:
    """The state dict that a format writes."""
    return tensors_of(net) if library == "transformers" else net.state_dict()


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("library", LIBRARIES)
def test_names_and_shapes_are_the_library_s(library: str, depth: int) -> None:
    with torch.device("meta"):
        net = ResNet(depth=depth)
    shapes = {name: list(value.shape) for name, value in as_library(library, net).items()}
    assert shapes == GOLDEN[library]["shapes"][f"resnet{depth}"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_features_are_those_that_the_libraries_gave(depth: int) -> None:
    """Names and shapes do not tell where a stride is; features do."""
    net = ResNet(depth=depth).eval()
    net.load_state_dict(numbered(net.state_dict()))
    with torch.no_grad():
        features_BD = net(picture(32))
    for library in LIBRARIES:
        recorded = torch.tensor(GOLDEN[library]["features"][f"resnet{depth}"])
        torch.testing.assert_close(features_BD[:, : recorded.shape[1]], recorded, atol=0, rtol=1e-3)


def test_names_of_transformers_are_read_back() -> None:
    with torch.device("meta"):
        net = ResNet(depth=50)
    for ours in net.state_dict():
        assert NAMES["Hugging Face"](name_of(ours)) == ours


def test_settings_for_transformers() -> None:
    with torch.device("meta"):
        basic, bottleneck = config_of(ResNet(depth=10, width=24)), config_of(ResNet(depth=101))
    assert (basic["layer_type"], basic["depths"]) == ("basic", [1, 1, 1, 1])
    assert (basic["embedding_size"], basic["hidden_sizes"]) == (24, [24, 48, 96, 192])
    assert (bottleneck["layer_type"], bottleneck["depths"]) == ("bottleneck", [3, 4, 23, 3])
    assert bottleneck["hidden_sizes"] == [256, 512, 1024, 2048]
    assert (
        not bottleneck["downsample_in_bottleneck"] and not bottleneck["downsample_in_first_stage"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_itself_gives_the_run_s_features(
    library: str,
    depth: int,
    tmp_path: Path,
    tiny: Config,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other_library(library)
    form, name = ("hf", "net") if library == "transformers" else (library, "net.pth")
    model = ModelConfig(depth=depth, projector_hidden=8, dim=4)
    run = saved_run(tmp_path / "run", replace(tiny, model=model))
    export(run, tmp_path / name, ExportSettings(format=form), console=quiet)
    card = tmp_path / (f"{name}.md" if library != "transformers" else f"{name}/README.md")
    monkeypatch.chdir(tmp_path)
    code = code_of(card).replace("processor =", "other =")  # images are not pictures here
    given = {"processor": lambda images, **_: {"pixel_values": images}, "images": picture(48)}
    with torch.no_grad():
        names = loaded(code, **given)
        net = names["net"].eval()
        found = names["features"] if library == "transformers" else net(picture(48))
        torch.testing.assert_close(found, open_network(run).backbone(picture(48)))


@pytest.mark.parametrize(
    ("form", "model", "message"),
    [
        ("torchvision", {"depth": 10}, "its depth is 10, not one of 18, 34, 50, 101"),
        ("timm", {"width": 8}, "its width is 8, not 64"),
        ("torchvision", {"expand": 64}, "it widens its features (model.expand is 64)"),
        ("hf", {"stem": "small"}, "it has the small stem (model.stem), and theirs is 7x7"),
        ("hf", {"depth": 8}, "its depth is 8, with no block in its first stage"),
    ],
)
def test_what_a_library_cannot_express(
    form: str,
    model: dict[str, Any],
    message: str,
    tmp_path: Path,
    tiny: Config,
    quiet: Console,
) -> None:
    small = ModelConfig(depth=18, width=64, projector_hidden=8, dim=4)
    run = saved_run(tmp_path / "run", replace(tiny, model=replace(small, **model)))
    with pytest.raises(ValueError, match="cannot express the network of") as error:
        export(run, tmp_path / "a" / "net.pth", ExportSettings(format=form), console=quiet)
    assert message in str(error.value) and "onnx" in str(error.value)
    assert not (tmp_path / "a").exists()
