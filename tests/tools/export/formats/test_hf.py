"""The folder for transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.config.view_recipe import ViewRecipe
from coke.model.coke_model import build_model
from coke.pipeline.views.draw import draw
from coke.pipeline.views.pil_reference import reference_view
from coke.tools.export.export import export
from coke.tools.export.formats.hf import processor_of
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import open_network
from coke.tools.runs.initial_weights import load_initial_weights
from tests.support.numbered_weights import picture
from tests.support.other_library import other_library
from tests.support.saved_run import saved_run

MODEL = ModelConfig(depth=10, width=8, projector_hidden=8, dim=4)
HF = ExportSettings(format="hf")


@pytest.fixture
def run(tmp_path: Path, tiny: Config) -> Path:
    pytest.importorskip("safetensors", reason="the extra safetensors is not installed")
    return saved_run(tmp_path / "run", replace(tiny, model=MODEL))


def test_the_folder_s_weights_start_a_run(run: Path, tmp_path: Path, quiet: Console) -> None:
    report = export(run, tmp_path / "net", HF, console=quiet)
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in report.sizes} == names
    assert {path.name for path in (tmp_path / "net").iterdir()} == names
    model = build_model(MODEL, seed=9)
    load_initial_weights(model, tmp_path / "net")
    model.eval()
    assert torch.equal(model.backbone(picture(16)), open_network(run).backbone(picture(16)))
    config = json.loads((tmp_path / "net" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["ResNetModel"] and config["model_type"] == "resnet"


@pytest.mark.slow
def test_transformers_loads_it(run: Path, tmp_path: Path, quiet: Console) -> None:
    transformers = other_library("transformers")
    export(run, tmp_path / "net", HF, console=quiet)
    net = transformers.AutoModel.from_pretrained(tmp_path / "net")
    found = net(picture(32)).pooler_output.flatten(1)
    torch.testing.assert_close(found, open_network(run).backbone(picture(32)))


@pytest.mark.parametrize("size", [32, 400])
def test_its_processor_s_pixels_are_those_of_evaluations(size: int, tmp_path: Path) -> None:
    """Resizing, then cropping, is cropping, then resizing, but for the rounding of a border."""
    transformers = other_library("transformers")
    recipe = ViewRecipe(size=size, center_fraction=0.8, mean=(0.5, 0.4, 0.3)).evaluation()
    about = Preprocessing(size=size, center_fraction=0.8, mean=recipe.mean, std=recipe.std)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(processor_of(about)), encoding="utf-8"
    )
    ramp = np.linspace(0, 250, 100)[None, :, None] * np.linspace(0.2, 1, 60)[:, None, None]
    image = Image.fromarray(np.repeat(ramp, 3, axis=2).astype(np.uint8))
    sides = np.array([60]), np.array([100])
    drawn = draw(
        recipe, seed=0, epoch=0, view=0, ids=np.array([0]), heights=sides[0], widths=sides[1]
    )
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    found = np.asarray(processor(image, return_tensors="np")["pixel_values"])[0]
    expected = reference_view(image, recipe, drawn, 0).transpose(2, 0, 1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 4 / 255 / min(recipe.std)
