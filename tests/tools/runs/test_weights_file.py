"""Tensors by name from files, without running code of them."""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from coke.tools.runs.weights_file import read_weights

TENSOR = torch.arange(6.0).reshape(2, 3)


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def test_tensors_by_the_keys_of_their_mapping(tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "a": {"w": TENSOR, "inner": {"v": TENSOR + 1}},
        "list": [TENSOR],
        7: {"w": TENSOR},
        "top": TENSOR + 2,
    }
    groups = read_weights(save(tmp_path / "w.pt", content))
    assert {path: sorted(tensors) for path, tensors in groups.items()} == {
        "": ["top"],
        "a": ["w"],
        "a.inner": ["v"],
    }
    assert torch.equal(groups["a.inner"]["v"], TENSOR + 1)


class Settings(dict[str, Any]):
    """A project's own kind of dict."""


@pytest.mark.parametrize("old_format", [False, True])
def test_python_objects_beside_the_weights_are_passed_over(
    tmp_path: Path, old_format: bool
) -> None:
    content: dict[str, Any] = {
        "model": {"w": TENSOR},
        "args": argparse.Namespace(a=1),
        "out": tmp_path,
        "settings": Settings(lr=0.1),
        "best": np.float64(3.5),
    }
    if not old_format:
        content |= {"class": nn.Linear, "lists": defaultdict(list, a=[1])}
    file = save(tmp_path / "w.pt", content, _use_new_zipfile_serialization=not old_format)
    groups = read_weights(file)
    assert list(groups) == ["model"] and torch.equal(groups["model"]["w"], TENSOR)


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    mark = Malicious(tmp_path / "ran")
    with pytest.raises(ValueError, match="--init-from"):
        read_weights(save(tmp_path / "alone.pt", mark))
    with pytest.raises(ValueError, match=r"Python objects \(posix.mkdir\)"):
        read_weights(save(tmp_path / "beside.pt", {"w": TENSOR, "x": mark}))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2), "epoch": 1}):
        with pytest.raises(
            ValueError, match=r"Python objects \(torch.*Reading them would run code"
        ):
            read_weights(save(tmp_path / "w.pt", content))


def test_safetensors_by_content_and_a_folder_of_hugging_face(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path / "resnet-50"
    folder.mkdir()
    safetensors.save_file({"resnet.w": TENSOR}, folder / "model.safetensors")
    other = (folder / "model.safetensors").rename(tmp_path / "weights.bin")
    for source in (other, folder):
        if source == folder:
            other.rename(folder / "model.safetensors")
        groups = read_weights(source)
        assert list(groups) == [""] and torch.equal(groups[""]["resnet.w"], TENSOR)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_weights(cut)


@pytest.mark.filterwarnings("ignore:.*torch")
def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    def error(source: Path) -> str:
        with pytest.raises(ValueError, match=f"--init-from {source}") as raised:
            read_weights(source)
        return str(raised.value)

    (tmp_path / "empty").mkdir()
    assert "there is no" in error(tmp_path / "none.pt")
    assert "no config.toml (of a run), nor state.pt, model.safetensors" in error(tmp_path / "empty")
    assert "download them first" in error(Path("https://example.org/resnet50.pth"))
    (tmp_path / "text.pt").write_text("text", encoding="utf-8")
    assert "cannot be read as weights" in error(tmp_path / "text.pt")
    (tmp_path / "nothing.pt").write_bytes(b"")
    assert "cannot be read as weights" in error(tmp_path / "nothing.pt")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"
    (tmp_path / "lfs.pt").write_text(pointer, encoding="utf-8")
    assert "git lfs pull" in error(tmp_path / "lfs.pt")
    assert "holds no tensors by name" in error(save(tmp_path / "list.pt", [1, 2]))
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "jit.pt"))
    assert "it is a TorchScript archive" in error(tmp_path / "jit.pt")


def test_a_model_of_hugging_face_in_several_files(tmp_path: Path) -> None:
    parts = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(
        json.dumps({"weight_map": dict(zip("vw", parts, strict=True))}), encoding="utf-8"
    )
    save(tmp_path / parts[0], {"v": TENSOR})
    with pytest.raises(ValueError, match=f"1 of the 2 files .* the first is {parts[1]}; copy"):
        read_weights(tmp_path)
    save(tmp_path / parts[1], {"w": TENSOR + 1})
    for source in (tmp_path, index):
        tensors = read_weights(source)[""]
        assert list(tensors) == ["v", "w"] and torch.equal(tensors["w"], TENSOR + 1)
    for broken in ("{}", "[]", '{"weight_map": 3}', "no JSON"):
        index.write_text(broken, encoding="utf-8")
        with pytest.raises(ValueError, match="cannot be read as an index of weights"):
            read_weights(tmp_path)
