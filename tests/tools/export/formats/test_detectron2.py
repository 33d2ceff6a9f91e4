"""``--format detectron2``: the file, what the card says of it, and the library itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.tools.export.card import model_card
from coke.tools.export.export import export
from coke.tools.export.formats.detectron2 import Detectron2
from coke.tools.export.formats.detectron2_names import detectron2_name
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork, open_network
from tests.support.command_line import fails
from tests.support.saved_run import saved_run
from tests.support.tiny_config import tiny_config

SETTINGS = ExportSettings(format="detectron2")
MODEL = ModelConfig(depth=50, width=8, projector_hidden=8, dim=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a narrow ResNet-50, whose features are widened."""
    config = Config(model=ModelConfig(**{**vars(MODEL), "expand": 300}))
    return saved_run(tmp_path_factory.mktemp("runs") / "run", config)


@pytest.fixture(scope="module")
def network(run: Path) -> TrainedNetwork:
    return open_network(run)


@pytest.mark.slow
def test_the_file_holds_the_weights_by_detectron2s_names(
    run: Path, network: TrainedNetwork, tmp_path: Path
) -> None:
    out = tmp_path / "net.pkl"
    export(run, out, SETTINGS)
    # As detectron2 opens it.
    found = pickle.loads(out.read_bytes(), encoding="latin1")
    assert {**found, "model": None} == {
        "model": None,
        "__author__": "coke",
        "matching_heuristics": True,
    }
    weights = {
        detectron2_name(name): value.numpy()
        for name, value in network.backbone.state_dict().items()
        if not name.startswith("expand")
    }
    assert found["model"].keys() == weights.keys() and len(weights) == 318
    for name, value in found["model"].items():
        assert type(value) is np.ndarray and value.dtype == weights[name].dtype, name
        assert value.shape == weights[name].shape and (value == weights[name]).all(), name


@pytest.mark.slow
def test_the_card_says_what_a_detector_must_be_told(network: TrainedNetwork) -> None:
    text = model_card(network, Detectron2(), SETTINGS, "net.pkl")
    assert (
        "    MODEL.PIXEL_MEAN: [123.675, 116.28, 103.53]\n"
        "    MODEL.PIXEL_STD: [58.395, 57.12, 57.375]\n"
        "    INPUT.FORMAT: RGB\n"
        "    MODEL.RESNETS.DEPTH: 50\n"
        "    MODEL.RESNETS.STRIDE_IN_1X1: False\n"
        "    MODEL.RESNETS.STEM_OUT_CHANNELS: 8\n"
        "    MODEL.RESNETS.WIDTH_PER_GROUP: 8\n"
        "    MODEL.RESNETS.RES2_OUT_CHANNELS: 32\n"
    ) in text
    assert "widens its features to 300 behind the last stage" in text


@pytest.mark.slow
def test_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = saved_run(tmp_path / "run", tiny_config())
    command = ("export", small, tmp_path / "net.pkl", "--format", "detectron2")
    line = fails(monkeypatch, capsys, *command, status=2)
    assert "is no ResNet of detectron2: its depth is 10, not one of 18, 34, 50, 101" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_detectron2_itself_computes_the_same(depth: int, tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="is built from source for one torch")
    width = 64 if depth == 18 else 8
    config = Config(model=ModelConfig(**{**vars(MODEL), "depth": depth, "width": width}))
    run, out = saved_run(tmp_path / "run", config), tmp_path / "net.pkl"
    export(run, out, SETTINGS)
    network, names = open_network(run), dict[str, torch.nn.Module]()
    exec(Detectron2().loading(network, SETTINGS, str(out)), names)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps = names["net"].eval()(images)["res5"]
        torch.testing.assert_close(
            maps.mean((2, 3)), network.backbone(images), atol=1e-4, rtol=1e-4
        )
