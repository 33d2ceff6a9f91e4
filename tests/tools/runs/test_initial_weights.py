"""Weights to start from: what is taken, what is told, what is refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.coke_model import CoKe, build_model
from coke.model.vit import VisionTransformer, interpolated
from coke.tools.runs.checkpoint import load_checkpoint
from coke.tools.runs.initial_weights import load_initial_weights
from coke.tools.training.train import train


@pytest.fixture
def model(tiny: Config) -> CoKe:
    return build_model(tiny.model, seed=1)


def save(path: Path, weights: Any) -> Path:
    torch.save(weights, path)
    return path


def test_a_backbone_with_the_names_of_torchvision(
    tiny: Config, model: CoKe, tmp_path: Path
) -> None:
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
    assert (taken.under, taken.names, taken.others) == ("", "torchvision", [])
    assert "  not used: fc.weight, fc.bias" in taken.lines()
    assert any(line.startswith("  stay random: projector.0.weight") for line in taken.lines())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_prefixes_and_keys_around_a_whole_model(
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


def test_weights_of_a_run_a_checkpoint_and_its_file(
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


def prefixed(model: CoKe, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in model.backbone.state_dict().items()}


def of_hugging_face(model: CoKe) -> dict[str, Tensor]:
    """The backbone by the names that transformers' ResNetForImageClassification has."""
    found = {}
    for name, value in model.backbone.state_dict().items():
        parts = name.split(".")
        kind = "normalization" if parts[-2].startswith("bn") or parts[-2] == "1" else "convolution"
        if len(parts) == 2:
            ours = f"embedder.embedder.{kind}.{parts[-1]}"
        elif "downsample" in parts:
            ours = f"shortcut.{kind}.{parts[-1]}"
        else:
            ours = f"layer.{int(parts[2][-1]) - 1}.{kind}.{parts[-1]}"
        if len(parts) > 2:
            ours = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}.{ours}"
        found[f"resnet.{ours}"] = value
    return found


def as_sequence(model: CoKe, *, max_pooling: bool) -> dict[str, Tensor]:
    """The backbone as ``nn.Sequential(*resnet.children())``, without its linear layer."""
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    if not max_pooling:
        children.remove("maxpool")
    return {
        f"backbone.{children.index(name.partition('.')[0])}.{name.partition('.')[2]}": value
        for name, value in model.backbone.state_dict().items()
    }


PROJECTS: dict[str, tuple[Callable[[CoKe, CoKe], Any], str]] = {
    "MoCo": (
        lambda a, b: {
            "arch": "resnet50",
            "state_dict": {
                **prefixed(b, "module.encoder_k."),
                **prefixed(a, "module.encoder_q."),
                "module.queue": torch.zeros(4, 9),
            },
        },
        "state_dict.module.encoder_q.",
    ),
    "MoCo v3": (
        lambda a, b: {
            "state_dict": {
                **prefixed(b, "module.momentum_encoder."),
                **prefixed(a, "module.base_encoder."),
            }
        },
        "state_dict.module.base_encoder.",
    ),
    "SimSiam": (
        lambda a, _: {"state_dict": prefixed(a, "module.encoder.")},
        "state_dict.module.encoder.",
    ),
    "DINO": (
        lambda a, b: {
            "student": prefixed(b, "module.backbone."),
            "teacher": prefixed(a, "backbone."),
            "args": argparse.Namespace(arch="resnet50", out=Path("x")),
            "best": np.float64(3.5),
        },
        "teacher.backbone.",
    ),
    "BYOL": (
        lambda a, b: {
            "target_network.projector.0.weight": torch.zeros(3, 3),
            **prefixed(b, "target_network.encoder."),
            **prefixed(a, "online_network.encoder."),
        },
        "online_network.encoder.",
    ),
    "a momentum copy": (
        lambda a, b: {"state_dict": prefixed(b, "momentum_backbone.") | prefixed(a, "backbone.")},
        "state_dict.backbone.",
    ),
    "SwAV": (
        lambda a, _: prefixed(a, "module.") | {"module.prototypes.weight": torch.zeros(3, 3)},
        "module.",
    ),
    "Lightning": (
        lambda a, _: {
            "pytorch-lightning_version": "2.0",
            "state_dict": prefixed(a, "model.encoder."),
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(3)}}}],
        },
        "state_dict.model.encoder.",
    ),
    "averaged weights": (
        lambda a, b: {"state_dict": prefixed(b, ""), "state_dict_ema": prefixed(a, "module.")},
        "state_dict_ema.module.",
    ),
    "nested": (
        lambda a, _: {"classy": {"base": {"trunk": prefixed(a, "_feature_blocks.")}}},
        "classy.base.trunk._feature_blocks.",
    ),
    "compiled": (lambda a, _: prefixed(a, "module._orig_mod.net._orig_mod."), "module.net."),
    "a sequence": (
        lambda a, _: {"state_dict": as_sequence(a, max_pooling=True)},
        "state_dict.backbone.",
    ),
    "a sequence without max pooling": (lambda a, _: as_sequence(a, max_pooling=False), "backbone."),
    "pytorch-cifar": (
        lambda a, _: {
            "net": {
                name.replace("downsample", "shortcut"): value
                for name, value in prefixed(a, "module.").items()
            }
        },
        "net.module.",
    ),
    "Hugging Face": (lambda a, _: of_hugging_face(a), "resnet."),
}


@pytest.mark.parametrize("project", PROJECTS)
def test_backbones_of_other_projects(
    tiny: Config, model: CoKe, tmp_path: Path, project: str
) -> None:
    saved, under = PROJECTS[project]
    meant, other = build_model(tiny.model, seed=2), build_model(tiny.model, seed=3)
    taken = load_initial_weights(model, save(tmp_path / "w.pth", saved(meant, other)))
    for name, value in meant.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert taken.under == under and f"under {under!r}" in taken.lines()[0]
    assert len(taken.loaded) == len(meant.backbone.state_dict()) and taken.misfits == []


def test_all_names_of_a_resnet_50_of_hugging_face_are_known(tmp_path: Path) -> None:
    config = ModelConfig(depth=50, width=8, projector_hidden=8, dim=4)
    meant, model = build_model(config, seed=2), build_model(config, seed=1)
    taken = load_initial_weights(model, save(tmp_path / "w.bin", of_hugging_face(meant)))
    assert taken.names == "Hugging Face" and len(taken.loaded) == 318
    assert all(
        torch.equal(value, meant.backbone.state_dict()[name])
        for name, value in model.backbone.state_dict().items()
    )


def test_our_own_network_with_an_expansion_under_other_names(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny.model, expand=12)
    meant = build_model(config, seed=2)
    sequence = nn.Sequential(*meant.backbone.children())
    ours = {n: v for n, v in meant.backbone.state_dict().items() if not n.startswith("expand.")}
    trunk = nn.Module()
    trunk.backbone = meant.backbone
    for saved in (sequence.state_dict(), {"net": trunk.state_dict()}):
        model = build_model(config, seed=1)
        taken = load_initial_weights(model, save(tmp_path / "w.pth", saved))
        assert len(taken.loaded) == len(meant.backbone.state_dict())
        for name, value in meant.backbone.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[name], value), name
    model = build_model(config, seed=1)
    taken = load_initial_weights(model, save(tmp_path / "w.pth", ours))
    assert "backbone.expand.0.weight" in taken.missing, "other projects have no expansion"


def test_weights_without_statistics_are_taken_and_it_is_told(
    tiny: Config, model: CoKe, tmp_path: Path
) -> None:
    weights = dict(build_model(tiny.model, seed=2).backbone.named_parameters())
    taken = load_initial_weights(model, save(tmp_path / "w.pth", weights))
    assert "backbone.bn1.running_mean" in taken.missing
    assert len(taken.loaded) == len(weights)


def test_a_head_is_taken_whole_or_not_at_all(tiny: Config, model: CoKe, tmp_path: Path) -> None:
    other = build_model(replace(tiny.model, dim=4), seed=2)
    before = model.projector.state_dict()["0.weight"].clone()
    taken = load_initial_weights(model, save(tmp_path / "w.pth", other.state_dict()))
    assert "projector.0.weight" in taken.missing and "projector.0.weight" in taken.unused
    assert torch.equal(model.projector.state_dict()["0.weight"], before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"depth": 18},
            r"holds a ResNet-18 of width 8.*, and the model is a ResNet-10 of width 8: ",
        ),
        ({"depth": 8}, r"holds a ResNet-8 of width 8.* layer1.0.conv1.weight is not there"),
        (
            {"depth": 50},
            r"holds a ResNet-50 of width 8.*--set model.depth=50 --set model.width=8",
        ),
        (
            {"width": 16},
            r"holds a ResNet-10 of width 16.* give weights of a ResNet-10 of width 8",
        ),
    ],
)
def test_another_network_is_refused_and_both_are_named(
    tiny: Config, model: CoKe, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = build_model(replace(tiny.model, **changes), seed=2)
    for names in (prefixed(other, ""), {"state_dict": prefixed(other, "module.")}):
        with pytest.raises(ValueError, match=message):
            load_initial_weights(model, save(tmp_path / "w.pth", names))
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


def test_a_deeper_network_has_layers_that_the_model_has_not(tiny: Config, tmp_path: Path) -> None:
    """All tensors of the smaller network are in the larger one."""
    shallow = build_model(replace(tiny.model, depth=8), seed=1)
    deep = build_model(tiny.model, seed=2)
    with pytest.raises(ValueError, match=r"ResNet-10 .*ResNet-8 .*layer1\.0\.conv1\.weight is of"):
        load_initial_weights(shallow, save(tmp_path / "w.pth", prefixed(deep, "")))


def test_a_file_that_is_cut_blames_no_setting(tiny: Config, model: CoKe, tmp_path: Path) -> None:
    whole = prefixed(build_model(tiny.model, seed=2), "")
    cut = {n: v for n, v in whole.items() if n != "layer4.0.bn2.weight"}
    with pytest.raises(
        ValueError, match=r"not all of it.*layer4\.0\.bn2\.weight is not there"
    ) as e:
        load_initial_weights(model, save(tmp_path / "w.pth", cut))
    assert "--set" not in str(e.value)


def test_several_backbones_without_a_word_that_tells_which(
    tiny: Config, model: CoKe, tmp_path: Path
) -> None:
    one, two = build_model(tiny.model, seed=2), build_model(tiny.model, seed=3)
    saved = prefixed(one, "left.") | prefixed(two, "right.")
    with pytest.raises(ValueError, match=r"several backbones that fit: 'left\.', 'right\.'"):
        load_initial_weights(model, save(tmp_path / "w.pth", saved))
    taken = load_initial_weights(
        model, save(tmp_path / "w.pth", prefixed(one, "left.") | prefixed(one, "right."))
    )
    assert taken.others == ["right."], "the same twice"


def test_weights_that_are_not_finite_are_refused(tiny: Config, model: CoKe, tmp_path: Path) -> None:
    saved = prefixed(build_model(tiny.model, seed=2), "")
    saved["layer1.0.conv1.weight"][0] = torch.nan
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has NaN"):
        load_initial_weights(model, save(tmp_path / "w.pth", saved))


def test_weights_without_values_are_refused(tiny: Config, model: CoKe, tmp_path: Path) -> None:
    on_meta = {
        name: value.to("meta") for name, value in build_model(tiny.model, 2).state_dict().items()
    }
    with pytest.raises(ValueError, match="on the device 'meta', which has no values"):
        load_initial_weights(model, save(tmp_path / "w.pth", on_meta))


def test_scripts_find_it_under_its_short_name() -> None:
    from coke.tools import initial_weights

    assert initial_weights.load_initial_weights is load_initial_weights


def test_a_file_without_such_a_backbone_is_refused(model: CoKe, tmp_path: Path) -> None:
    def error(source: Path) -> str:
        before = {n: v.clone() for n, v in model.state_dict().items()}
        with pytest.raises(ValueError, match="--init-from") as raised:
            load_initial_weights(model, source)
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
        return str(raised.value)

    line = error(save(tmp_path / "vit.pt", {"blocks.0.attn.qkv.weight": torch.zeros(9, 3)}))
    assert "nothing in it has a name of the model's backbone, a ResNet-10 of width 8" in line
    assert "blocks.0.attn.qkv.weight" in line and "conv1.weight" in line
    wide = save(tmp_path / "wide.pt", {"conv1.weight": torch.zeros(64, 3, 3, 3)})
    assert "another network" in error(wide) and "bn1.weight is not there" in error(wide)


def vit(image_size: int, seed: int) -> CoKe:
    config = ModelConfig(
        backbone="vit", size="tiny", patch=4, image_size=image_size, projector_hidden=16, dim=8
    )
    return build_model(config, seed)


def test_a_vits_positions_are_interpolated_and_the_rest_is_taken(
    small_vit: None, tmp_path: Path
) -> None:
    """DINO's file: the teacher's names are timm's, and its grid is that of larger images."""
    other, model = vit(32, seed=2), vit(16, seed=1)
    teacher = {f"module.backbone.{n}": v for n, v in other.backbone.state_dict().items()}
    source = save(tmp_path / "dino.pth", {"teacher": teacher})
    taken = load_initial_weights(model, source)
    own, theirs = model.backbone.state_dict(), other.backbone.state_dict()
    assert torch.equal(own.pop("pos_embed"), interpolated(theirs.pop("pos_embed"), 4, 4))
    assert all(torch.equal(own[name], value) for name, value in theirs.items())
    assert taken.misfits == [] and "backbone.pos_embed" in taken.loaded
    assert "  interpolated: backbone.pos_embed: (1, 65, 16) to (1, 17, 16)" in taken.lines()


def test_positions_that_are_no_square_stay_random(small_vit: None, tmp_path: Path) -> None:
    model = vit(16, seed=1)
    saved = vit(16, seed=2).backbone.state_dict() | {"pos_embed": torch.zeros(1, 14, 16)}
    taken = load_initial_weights(model, save(tmp_path / "odd.pth", saved))
    assert taken.misfits == ["backbone.pos_embed: (1, 14, 16) != (1, 17, 16)"]
    assert taken.interpolated == []


def test_a_vit_of_another_size_is_named_with_its_settings(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {n: v.shape for n, v in VisionTransformer(size="tiny").state_dict().items()}
    zeros = save(tmp_path / "tiny.pth", {n: torch.zeros(shape) for n, shape in shapes.items()})
    model = build_model(ModelConfig(backbone="vit", size="small", patch=16), seed=0)
    message = (
        r"a ViT-tiny/16, and the model is a ViT-small/16: .*"
        "--set model.backbone=vit --set model.size=tiny --set model.patch=16 trains that one"
    )
    with pytest.raises(ValueError, match=message):
        load_initial_weights(model, zeros)
