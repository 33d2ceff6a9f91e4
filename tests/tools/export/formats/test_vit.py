"""ViTs in other libraries and in graphs: names, shapes and features.

``transformers_vit.json`` was recorded from transformers; see ``tests/golden/README.md``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import nn

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.vit import SIZES, VisionTransformer
from coke.tools.evaluation.finetune import eval_finetune
from coke.tools.export.export import export
from coke.tools.export.formats import FORMATS
from coke.tools.export.formats.hf_vit import config_of, tensors_of
from coke.tools.export.formats.vit_at_size import vit_at_size
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork, open_network
from coke.tools.runs.classifier_file import read_classifier
from tests.support.card_code import code_of, loaded
from tests.support.numbered_weights import numbered, picture
from tests.support.other_library import other_library
from tests.support.saved_run import saved_run

GOLDEN = json.loads(
    (Path(__file__).parents[3] / "golden" / "transformers_vit.json").read_text(encoding="utf-8")
)
#: Its positions are for 16 pixels, and the run's evaluations have 32: the exports interpolate.
MODEL = ModelConfig(backbone="vit", size="tiny", patch=8, image_size=16, projector_hidden=8, dim=4)


def tiny_vit(**options: Any) -> VisionTransformer:
    net = VisionTransformer(size="tiny", **{"patch": 16, **options})
    net.load_state_dict(numbered(net.state_dict()))
    return net.eval().requires_grad_(False)


def saved(folder: Path, tiny: Config, model: ModelConfig) -> Path:
    view = replace(tiny.data.view, size=32)
    return saved_run(
        folder, replace(tiny, model=model).changed(data={"view": view, "second_view": view})
    )


def test_names_and_shapes_are_those_of_transformers_files() -> None:
    shapes = {name: list(v.shape) for name, v in tensors_of(tiny_vit()).items()}
    assert shapes == GOLDEN["shapes"]


def test_settings_are_those_of_transformers() -> None:
    """All that differ from its defaults, which are ViT-base's, or decide the features."""
    recorded = GOLDEN["config"]
    settings = config_of(tiny_vit(), 224)
    assert {name: recorded[name] for name in settings} == settings
    assert settings["num_attention_heads"] == 3 and settings["intermediate_size"] == 768


@pytest.mark.slow
def test_features_are_those_that_transformers_gave() -> None:
    """With the weights by our names: a mix-up of query and key would show."""
    recorded = torch.tensor(GOLDEN["features"])
    features_BD = tiny_vit(image_size=32)(picture(32))
    torch.testing.assert_close(features_BD[:, : recorded.shape[1]], recorded, atol=0, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_positions_of_another_size_give_the_same_features(pool: str) -> None:
    net = tiny_vit(patch=8, image_size=16, pool=pool)
    at_32 = vit_at_size(net, 32)
    assert at_32.pos_embed.shape == (1, 17, 192) and net.pos_embed.shape == (1, 5, 192)
    torch.testing.assert_close(at_32(picture(32)), net(picture(32)))


def shortened(run: Path) -> TrainedNetwork:
    """One of the twelve blocks: exporters take their time for each."""
    network = open_network(run)
    assert isinstance(network.backbone, VisionTransformer)
    network.backbone.blocks = nn.ModuleList(list(network.backbone.blocks)[:1])
    return network


@pytest.mark.slow
def test_programs_of_pixels_give_the_run_s_features_for_any_batch(
    tmp_path: Path, tiny: Config
) -> None:
    network, out = shortened(saved(tmp_path / "run", tiny, MODEL)), tmp_path / "net.pt2"
    settings = ExportSettings(format="pt2", with_preprocessing=True)
    out.write_bytes(FORMATS["pt2"].contents(network, settings, out.name)[out.name])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    program = torch.export.load(out).module()
    for batch in (5, 1):
        found = program(torch.from_numpy(pixels[:batch]))
        expected = network.backbone(normalised(pixels[:batch], network))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def normalised(pixels: NDArray[np.uint8], network: TrainedNetwork) -> torch.Tensor:
    about = network.preprocessing
    values = (pixels / 255 - np.array(about.mean)) / np.array(about.std)
    return torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)


@pytest.mark.slow
def test_onnx_classifies_files_as_accurately_as_the_fine_tuning_said(
    tmp_path: Path,
    tiny: Config,
    stripes: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files are read with PIL and given to onnxruntime, all at once and one alone, as a user would.
    Their scores are those of the classifier in torch."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra onnx, or onnxruntime, is not installed")
    monkeypatch.setitem(SIZES, "tiny", (16, 1, 2))  # exporters take their time for each block
    model = replace(MODEL, patch=4, image_size=8)
    config = replace(tiny, model=model).changed(machine={"precision": "fp32"})
    run, out = saved_run(tmp_path / "run", config), tmp_path / "net.onnx"
    tuning: dict[str, Any] = {"lr": [0.1], "weight_decay": [0.0], "epochs": 4, "batch_size": 16}
    report = eval_finetune(run, stripes, baselines=False, console=quiet, **tuning)
    (tuned,) = run.glob("finetune/*/model.pt")
    settings = ExportSettings(format="onnx", with_preprocessing=True, head=tuned)
    export(run, out, settings, console=quiet)

    files = sorted((stripes.parent / "src" / "test").glob("*/*.jpg"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    session = pytest.importorskip("onnxruntime").InferenceSession(out)
    (scores_NC,) = session.run(None, {"images": pixels})
    (alone_1C,) = session.run(None, {"images": pixels[:1]})
    classifier = read_classifier(tuned)
    expected = classifier.network()(normalised(pixels, open_network(run))).detach().numpy()
    np.testing.assert_allclose(scores_NC, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(alone_1C, expected[:1], atol=1e-4, rtol=0)
    named = [classifier.classes[i] for i in scores_NC.argmax(axis=1)]
    right = sum(name == file.parent.name for name, file in zip(named, files, strict=True))
    assert 100 * right / len(files) == pytest.approx(report.rows["CoKe"].top1)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_the_library_itself_gives_the_run_s_features(
    library: str,
    pool: str,
    tmp_path: Path,
    tiny: Config,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other_library(library)
    form, name = ("hf", "net") if library == "transformers" else ("timm", "net.pth")
    run = saved(tmp_path / "run", tiny, replace(MODEL, pool=pool))
    export(run, tmp_path / name, ExportSettings(format=form), console=quiet)
    monkeypatch.chdir(tmp_path)
    if library == "transformers":
        given = {"processor": lambda images, **_: {"pixel_values": images}, "images": picture(32)}
        code = code_of(tmp_path / name / "README.md").replace("processor =", "other =")
        found = loaded(code, **given)["features"]
    else:
        found = loaded(code_of(tmp_path / f"{name}.md"))["net"].eval()(picture(32))
    torch.testing.assert_close(found, open_network(run).backbone(picture(32)), atol=1e-4, rtol=0)


def test_what_is_no_vit_of_a_library(tmp_path: Path, tiny: Config, quiet: Console) -> None:
    run = saved(tmp_path / "run", tiny, MODEL)
    with pytest.raises(ValueError, match="torchvision cannot express the network of .*ViT-tiny/8"):
        export(run, tmp_path / "net.pth", ExportSettings(format="torchvision"), console=quiet)
