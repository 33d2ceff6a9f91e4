"""What is said where there is no manifest, or not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.manifest import FORMAT_VERSION


def test_a_folder_without_manifest_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no data set: .*manifest\.json is missing"):
        ImageIndex(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b'{"format": "coke-dataset", "version": 1',
        b'{"format": "coke-dataset", "version": 1}',
        b'{"format": "coke-dataset", "version": 1, "containers": [3]}',
        b'{"format": "coke-dataset", "version": 1, "containers": [], "surprise": 1}',
        b"\xff\xfe{}",
    ],
)
def test_a_damaged_manifest_is_named(folder: Path, damage: bytes) -> None:
    (folder / "manifest.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged \(.*\); ingest again"):
        ImageIndex(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("version", FORMAT_VERSION + 1), ("format", "other"), ("version", None)]
)
def test_another_format_is_refused_with_both_versions(
    folder: Path, field: str, value: object
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest[field] = value
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    expected = f"{value!r}.*this coke reads 'coke-dataset' version {FORMAT_VERSION}"
    with pytest.raises(ValueError, match=expected):
        ImageIndex(folder)
