"""Images in parquet files: columns, keys, labels, memory, damage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sources import synthetic, write_parquet
from coke.pipeline.sources import Source, find_splits
from coke.pipeline.sources import parquet as layout

pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


def write(
    path: Path, features: dict[str, Any] | None = None, rows: int = 3, **columns: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, row_group_size=rows)
    return path


def images(*paths: str | None) -> Any:
    return [{"bytes": f"image {i}".encode(), "path": path} for i, path in enumerate(paths)]


def test_splits_by_name_and_by_folder(tmp_path: Path) -> None:
    names = {"label": {"_type": "ClassLabel", "names": ["zebra", "ant"]}}
    for root, files in {
        "names": ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                  "data/test-00000-of-00001.parquet"),
        "folders": ("default/train/0000.parquet", "default/train/0001.parquet",
                    "default/test/0000.parquet"),
    }.items():  # fmt: skip
        for i, file in enumerate(files):
            label = [-1] if "test" in file else [i]
            write(tmp_path / root / file, names, image=images(f"{9 - i}.png"), label=label)
        found = find_splits(tmp_path / root)
        assert list(found) == ["train", "test"]
        # The Hub's own order of classes is kept: labels are numbers there.
        assert found["train"].classes == found["test"].classes == ("zebra", "ant")
        assert found["train"].keys == ("8.png", "9.png") and found["train"].labels == (1, 0)
        assert found["test"].labels == (-1,)
        assert found["train"].describe(0) == (
            f"row 0 of row group 0 of {tmp_path / root / files[1]}"
        )


def test_a_file_of_another_name_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "part-0", image=images("b.png", "a.png"), label=[0, 1])
    source = only(find_splits(path))
    assert source.keys == ("a.png", "b.png") and source.labels == (1, 0)
    assert source.read(0) == b"image 1"


def test_keys_are_rows_where_paths_are_missing_or_repeat(tmp_path: Path) -> None:
    for paths in (("a.png", None), ("a.png", "a.png"), (None, None)):
        for number in range(2):
            write(tmp_path / f"part-{number}.parquet", image=images(*paths), rows=1)
        source = only(find_splits(tmp_path))
        assert source.keys == (
            "part-0/000000", "part-0/000001", "part-1/000000", "part-1/000001",
        )  # fmt: skip
        assert source.labels == (-1,) * 4 and source.read(3) == b"image 1"


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_plain_columns_of_bytes(kind: str, tmp_path: Path) -> None:
    cells = pa.array([b"0", b"1", None], getattr(pa, kind)())
    labels = pa.array(["b", "a", None]).dictionary_encode()
    write(tmp_path / "a.parquet", jpg=cells, thumb=cells, class_name=["?"] * 3, category=labels)
    source = only(find_splits(tmp_path))
    assert source.classes == ("a", "b") and source.labels == (1, 0, -1)
    assert source.read(1) == b"1"
    with pytest.raises(OSError, match="the cell holds no bytes"):
        source.read(2)


def test_text_that_holds_numbers_is_labels_by_number(tmp_path: Path) -> None:
    # Sorted as text, "10" would become class 0 in one file and be the number 10 in a table.
    write(tmp_path / "a-0.parquet", image=[b"0", b"1"], label=["10", "9.0"])
    write(tmp_path / "a-1.parquet", image=[b"2", b"3"], label=["2", None])
    assert only(find_splits(tmp_path)).labels == (10, 9, 2, -1)
    write(tmp_path / "a-1.parquet", image=[b"2", b"3"], label=["cat", None])
    with pytest.raises(ValueError, match="labels are all numbers or all names"):
        find_splits(tmp_path)


def test_columns_that_are_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, text=["a"], n=[1])
    with pytest.raises(ValueError, match=r"no images in its columns text \(string\), n \(int64\)"):
        find_splits(path)
    write(path, left=[b"a"], right=[b"b"])
    with pytest.raises(ValueError, match=r"several columns of bytes \(left, right\)"):
        find_splits(path)
    write(path, {"right": {"_type": "Image"}}, left=[b"a"], right=[b"b"])
    assert only(find_splits(path)).read(0) == b"b"
    write(path, image=[b"a"], label=[[1, 2]])
    with pytest.raises(
        ValueError, match=r"column label of .* has the label \[1, 2\]; a label is a whole"
    ):
        find_splits(path)
    assert len(only(find_splits(path, labels="none"))) == 1
    write(path, image=[b"a", b"b"], label=[1, 7], features={"label": {"names": ["x", "y"]}})
    with pytest.raises(ValueError, match=r"a label in .* is 7; .* below 2"):
        find_splits(path)
    write(path, image=pa.array([], pa.binary()))
    with pytest.raises(ValueError, match="have no rows"):
        find_splits(path)
    write(tmp_path / "b.parquet", img=[b"a"])
    with pytest.raises(ValueError, match="ingest them apart"):
        find_splits(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, synthetic(12))
    path = root / "train-00001-of-00003.parquet"
    whole = path.read_bytes()
    source = only(find_splits(root))
    for cut in (0, 3, 100, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"train-00001.*is damaged .*download it again"):
            find_splits(root)
    path.write_bytes(whole[:60] + bytes(400) + whole[460:])
    own = [i for i in range(12) if path.name in source.describe(i)]
    with pytest.raises(OSError, match=path.name):
        [source.read(i) for i in own]
    assert all(source.read(i) for i in set(range(12)) - set(own))
    path.write_bytes(b"<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(ValueError, match=r"is no parquet file, but a web page: download the file"):
        find_splits(path)


def test_a_row_group_is_read_once_for_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [bytes([i]) * 1000 for i in range(12)]
    paths = [f"{i:02d}.jpg" for i in range(12)]
    source = only(find_splits(write(tmp_path / "a.parquet", image=cells, key=paths, rows=4)))
    opened: list[str] = []
    real = layout._opened

    def counted(path: str) -> Any:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(layout, "_opened", counted)
    monkeypatch.setattr(layout, "_row_groups", layout._RowGroups())
    assert [source.read(i) for i in range(12)] == cells and len(opened) == 3
    assert [source.read(i) for i in range(12)] == cells and len(opened) == 3
    # Memory is bounded: with room for one row group, going back reads again.
    monkeypatch.setattr(layout, "_CACHE_BYTES", 5000)
    monkeypatch.setattr(layout, "_row_groups", layout._RowGroups())
    assert [source.read(i) for i in (0, 5, 0, 1)] == [cells[i] for i in (0, 5, 0, 1)]
    assert len(opened) == 6 and len(layout._row_groups._kept) == 1
    monkeypatch.setattr(layout, "_LARGEST_ROW_GROUP", 3000)
    with pytest.raises(ValueError, match=r"row group 0 of .*a\.parquet has .* at most 3,000 bytes"):
        find_splits(tmp_path)


def test_without_pyarrow_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", image=[b"a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ValueError, match=r"needs the package pyarrow: pip install 'coke\[parquet\]"
    ):
        find_splits(tmp_path)
