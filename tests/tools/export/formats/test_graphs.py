"""ONNX and `torch.export`: their features are those of `coke embed`."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from coke.model.coke_model import build_model
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.representations import evaluation_loader
from coke.tools.export.export import export
from coke.tools.export.formats import FORMATS
from coke.tools.export.formats.graph import FromPixels
from coke.tools.export.preprocessing import Preprocessing
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import open_network
from coke.tools.features.embed import EmbedSettings, embed
from coke.tools.runs.classifier_file import FineTuned, read_classifier, write_classifier
from tests.support.saved_run import saved_run
from tests.support.tiny_config import tiny_config

QUIET = Console(quiet=True)
#: The network with the fewest parts: exporters take their time for each.
CONFIG = replace(tiny_config(), model=replace(tiny_config().model, depth=8)).changed(
    machine={"precision": "fp32"}
)
Network = Callable[[NDArray[Any]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("runs") / "run", CONFIG)


def need(form: str) -> None:
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="the extra onnx, or onnxruntime, is not installed")


def opened(form: str, path: Path) -> Network:
    """The exported network, as the format's own library runs it."""
    if form == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )
        return lambda images: session.run(None, {"images": images})[0]
    program = torch.export.load(path).module()
    return lambda images: program(torch.from_numpy(images)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_features_are_those_of_embed_at_any_batch_and_size(
    form: str, run: Path, stripes: Path, tmp_path: Path
) -> None:
    need(form)
    out = tmp_path / f"net.{form}"
    export(run, out, ExportSettings(format=form), console=QUIET)
    net = opened(form, out)
    assert json.loads(notes(form, out)["preprocessing"])["mean"] == list(CONFIG.data.view.mean)
    embed(run, stripes, tmp_path / "e", EmbedSettings(device="cpu"), console=QUIET)
    features_ND = np.load(tmp_path / "e" / "features.npy")
    index, cpu = ImageIndex(stripes / "train"), torch.device("cpu")
    loader = evaluation_loader(index, CONFIG, CONFIG.data.view.evaluation(), 25, cpu)
    for batch in loader.epoch(0):  # of 25, 25 and 10 images
        found_BD = net(batch.views[0].contiguous().numpy())
        np.testing.assert_allclose(found_BD, features_ND[batch.ids.numpy()], atol=1e-4, rtol=0)
    backbone = open_network(run).backbone
    for shape in ((1, 3, 16, 16), (3, 3, 24, 40)):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        np.testing.assert_allclose(net(images.numpy()), backbone(images), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_pixels_are_normalised_inside_a_resnet_of_any_size(run: Path, tmp_path: Path) -> None:
    """ONNX of pixels is tested with a ViT, in ``test_vit.py``."""
    out = tmp_path / "net.pt2"
    export(run, out, ExportSettings(format="pt2", with_preprocessing=True), console=QUIET)
    network, net = open_network(run), opened("pt2", out)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
    view = CONFIG.data.view
    normalised = (pixels / 255 - np.array(view.mean)) / np.array(view.std)
    images = torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(net(pixels), network.backbone(images), atol=1e-4, rtol=0)
    assert json.loads(notes("pt2", out)["preprocessing"])["inside"] == ["scale", "normalise"]


def notes(form: str, path: Path) -> dict[str, str]:
    """What a file says of itself."""
    if form == "onnx":
        model = pytest.importorskip("onnx").load(path)
        return {entry.key: entry.value for entry in model.metadata_props}
    with zipfile.ZipFile(path) as archive:
        extra = [name for name in archive.namelist() if "/extra/" in name]
        return {Path(name).name: archive.read(name).decode() for name in extra}


def test_normalising_by_hand() -> None:
    about = Preprocessing(size=1, center_fraction=1.0, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3)
    found = FromPixels(torch.nn.Identity(), about)(pixels)
    assert found.shape == (1, 3, 1, 1)
    assert found.flatten().tolist() == pytest.approx([-1.0, 3.0, 0.2])


@pytest.mark.slow
def test_a_program_says_what_it_takes_and_not_where_it_was_made(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    export(run, out, ExportSettings(format="pt2"), console=QUIET)
    said = notes("pt2", out)
    view = CONFIG.data.view
    assert json.loads(said["preprocessing"]) == {
        "size": 16, "center_fraction": 1.0, "shorter_side": 16, "mean": list(view.mean),
        "std": list(view.std), "interpolation": "bilinear, with antialiasing", "channels": "RGB",
        "inside": [],
    }  # fmt: skip
    assert (said["network"], said["epoch"]) == ("ResNet-8, width 8", "1")
    with zipfile.ZipFile(out) as archive:
        assert all(str(Path.cwd()).encode() not in archive.read(n) for n in archive.namelist())


def test_a_package_that_is_missing_is_named_before_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    with pytest.raises(ValueError, match=r"onnxscript: pip install 'coke\[onnx\]'"):
        export(run, tmp_path / "net.onnx", ExportSettings(format="onnx"), console=QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [name for name, form in FORMATS.items() if not form.is_graph])
def test_no_other_format_normalises(form: str, run: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format=form, with_preprocessing=True)
    with pytest.raises(ValueError, match=r"is for graphs \(onnx and pt2\), and --format"):
        export(run, tmp_path / "net", settings, console=QUIET)


@pytest.fixture
def classifier(run: Path, tmp_path: Path) -> Path:
    """A file as `coke eval finetune` writes it, of weights that are not the run's."""
    net = build_model(CONFIG.model, seed=7).backbone
    path = tmp_path / "model.pt"
    found = FineTuned(
        model=CONFIG.model,
        backbone=net.state_dict(),
        head_weight=torch.randn(2, 64, generator=torch.Generator().manual_seed(1)),
        head_bias=torch.tensor([0.5, -0.5]),
        classes=("horizontal", "vertical"),
        view=CONFIG.data.view.evaluation(),
        about={
            "epoch": 1,
            "data": {"test": {"location": "/a/test"}, "train": {"location": "/a/train"}},
            "top1": 87.5,
            "top5": None,
            "test_images": 20,
        },
    )
    write_classifier(path, found)
    return path


@pytest.mark.slow
def test_a_head_gives_the_scores_of_its_classes(
    run: Path, classifier: Path, tmp_path: Path
) -> None:
    """In ``torch.export``; ONNX records the same module."""
    out = tmp_path / "net.pt2"
    export(run, out, ExportSettings(format="pt2", head=classifier), console=QUIET)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = read_classifier(classifier).network()(images)
    np.testing.assert_allclose(
        opened("pt2", out)(images.numpy()), expected.detach(), atol=1e-4, rtol=0
    )
    assert json.loads(notes("pt2", out)["classes"]) == ["horizontal", "vertical"]
    card = (tmp_path / "net.pt2.md").read_text(encoding="utf-8")
    assert "fine-tuned, a score for each of 2 classes, format `pt2`" in card
    assert "labels of `train`. On 20 images of `test`: top-1 87.50 %.\n" in card
    assert "in the order of the scores: `horizontal`, `vertical`." in card
    assert "scores = net(images)" in card


def test_a_head_that_does_not_fit_is_refused(run: Path, classifier: Path, tmp_path: Path) -> None:
    other = saved_run(tmp_path / "other", tiny_config())
    out = tmp_path / "net.pt2"
    for folder, settings, message in (
        (run, ExportSettings(format="pt2", head=tmp_path / "none.pt"), "there is no .*none.pt"),
        (run, ExportSettings(format="timm", head=classifier), "--head is for graphs"),
        (other, ExportSettings(format="pt2", head=classifier), "fine-tuned ResNet-8, width 8, and"),
    ):
        with pytest.raises(ValueError, match=message):
            export(folder, out, settings, console=QUIET)
    with pytest.raises(ValueError, match="--epoch 3 chooses a checkpoint, and --head"):
        ExportSettings(format="pt2", head=classifier, epoch=3)
    assert not out.exists()
