"""``model.pt``: what was written is read, and is the classifier."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from coke.config.config import Config
from coke.model.backbone import feature_dim
from coke.model.coke_model import build_model
from coke.tools.runs.classifier_file import (
    FineTuned,
    classifiers_of,
    read_classifier,
    write_classifier,
)


def fine_tuned(config: Config) -> FineTuned:
    backbone = build_model(config.model, 3).backbone
    torch.manual_seed(0)
    return FineTuned(
        model=config.model,
        backbone=backbone.state_dict(),
        head_weight=torch.randn(4, feature_dim(backbone)),
        head_bias=torch.randn(4),
        classes=("a", "b", "<c>", "ü"),
        view=config.data.view.evaluation(),
        about={"top1": 61.5, "top5": None, "data": {"train": {"images": 3}}, "scale": [0.2, 1.0]},
    )


def test_a_classifier_is_read_back_whole(tiny: Config, tmp_path: Path) -> None:
    written = fine_tuned(tiny)
    write_classifier(tmp_path / "model.pt", written)
    found = read_classifier(tmp_path / "model.pt")
    assert (found.model, found.view, found.classes) == (
        written.model,
        written.view,
        written.classes,
    )
    assert found.about == written.about
    images = torch.randn(2, 3, 16, 16)
    backbone = build_model(tiny.model, 3).backbone.eval()
    expected = nn.functional.linear(backbone(images), written.head_weight, written.head_bias)
    assert torch.equal(found.network()(images), expected)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_the_newest_classifier_of_a_run_is_the_last(tiny: Config, tmp_path: Path) -> None:
    assert classifiers_of(tmp_path) == []
    for age, name in ((20, "b"), (10, "a"), (30, "c")):
        (tmp_path / "finetune" / name).mkdir(parents=True)
        write_classifier(tmp_path / "finetune" / name / "model.pt", fine_tuned(tiny))
        os.utime(tmp_path / "finetune" / name / "model.pt", (1000 - age, 1000 - age))
    assert [path.parent.name for path in classifiers_of(tmp_path)] == ["c", "b", "a"]


def test_files_that_are_no_classifier_are_refused(tiny: Config, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(ValueError, match=r"there is no .*model.pt; `coke eval finetune RUN DATA`"):
        read_classifier(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"model.pt cannot be read \(\w+\); delete it"):
        read_classifier(path)
    for state in ({"format_version": 2}, {"format_version": 1, "model": 1}, [1]):
        torch.save(state, path)
        with pytest.raises(ValueError, match="is no fine-tuned classifier of format version 1"):
            read_classifier(path)
    write_classifier(path, replace(fine_tuned(tiny), classes=("a",)))
    assert read_classifier(path).classes == ("a",)
