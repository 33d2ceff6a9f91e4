"""Arrow files as ``save_to_disk`` writes them, and Arrow's newer types in parquet."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from coke.pipeline.sources import find_splits

pa = pytest.importorskip("pyarrow", reason="Arrow files need pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ipc = pytest.importorskip("pyarrow.ipc")

NAMES = {"label": {"_type": "ClassLabel", "names": ["zebra", "ant"]}}


def table(images: list[str], labels: list[int], batch: int = 2) -> Any:
    structs = [{"bytes": name.encode(), "path": f"{name}.png"} for name in images]
    made = pa.table({"image": structs, "label": labels})
    about = json.dumps({"info": {"features": NAMES}})
    return made.replace_schema_metadata({"huggingface": about})


def save(folder: Path, *tables: Any) -> Path:
    """One saved data set: a stream per table, and what is written beside them."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, made in zip(names, tables, strict=True):
        with ipc.new_stream(folder / name, made.schema) as writer:
            writer.write_table(made, max_chunksize=2)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_saved_data_set(tmp_path: Path) -> None:
    save(tmp_path / "set", table(["b", "a", "d"], [0, 1, 0]), table(["c"], [1]))
    # A map's cache lies beside the data and holds other rows.
    (tmp_path / "set" / "cache-1f.arrow").write_bytes(b"anything")
    source = find_splits(tmp_path / "set")[""]
    assert source.keys == ("a.png", "b.png", "c.png", "d.png")
    assert source.labels == (1, 0, 1, 0) and source.classes == ("zebra", "ant")
    piece = pickle.loads(pickle.dumps(source.take([1, 2])))
    assert [piece.read(i) for i in range(2)] == [b"b", b"c"]
    assert piece.describe(1) == f"row 0 of {tmp_path / 'set' / 'data-00001-of-00002.arrow'}"
    assert sorted(other.key for other in source.others) == [
        "cache-1f.arrow", "dataset_info.json", "state.json",
    ]  # fmt: skip


def test_results_of_maps_are_not_read_where_nothing_names_the_data(tmp_path: Path) -> None:
    # load_dataset keeps files so. The result of a map has the same images once more.
    save(tmp_path / "set", table(["a", "b"], [0, 1]))
    (tmp_path / "set" / "state.json").unlink()
    data = (tmp_path / "set" / "data-00000-of-00001.arrow").rename(
        tmp_path / "set" / "s-train.arrow"
    )
    for cache in ("cache-0a1f.arrow", "cache-0a1f_00001_of_00002.arrow"):
        (tmp_path / "set" / cache).write_bytes(data.read_bytes())
    found = find_splits(tmp_path / "set")
    assert found[""].keys == ("a.png", "b.png") and found.there == 5


def test_a_saved_dictionary_has_splits_of_any_name(tmp_path: Path) -> None:
    save(tmp_path / "in" / "train_small", table(["b", "a"], [0, 1]))
    save(tmp_path / "in" / "dev", table(["a"], [1]))
    (tmp_path / "in" / "dataset_dict.json").write_text(
        '{"splits": ["train_small", "dev"]}', encoding="utf-8"
    )
    found = find_splits(tmp_path)
    assert set(found) == {"train_small", "dev"}
    assert found["train_small"].labels == (1, 0) and found["dev"].keys == ("a.png",)


def test_an_arrow_file_of_any_name_gives_what_parquet_gives(tmp_path: Path) -> None:
    made = table(["b", "a"], [0, 1])
    pq.write_table(made, tmp_path / "t.parquet")
    with ipc.new_file(tmp_path / "t.feather", made.schema) as writer:
        writer.write_table(made)
    parquet, arrow = (find_splits(tmp_path / name)[""] for name in ("t.parquet", "t.feather"))
    assert parquet.keys == arrow.keys and parquet.labels == arrow.labels
    assert [parquet.read(i) for i in range(2)] == [arrow.read(i) for i in range(2)]


def test_arrow_files_that_cannot_be_read(tmp_path: Path) -> None:
    save(tmp_path / "set", table(["b"], [0]))
    (tmp_path / "set" / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    with pytest.raises(ValueError, match=r"data-00000-of-00001\.arrow cannot be read"):
        find_splits(tmp_path / "set")


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_all_columns_of_bytes_are_images(kind: str, tmp_path: Path) -> None:
    of_bytes = getattr(pa, kind)()
    text = pa.string_view() if kind == "binary_view" else pa.large_string()
    columns = {
        "image": pa.array([b"x", b"y"], of_bytes),
        "path": pa.array(["2.png", "1.png"], text),
        "label": pa.array(["dog", "cat"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "plain.parquet")
    inner = pa.struct([("bytes", of_bytes), ("path", text)])
    structs = pa.array([{"bytes": b"x", "path": "2.png"}, {"bytes": b"y", "path": "1.png"}], inner)
    pq.write_table(pa.table({"image": structs, "label": columns["label"]}), tmp_path / "s.parquet")
    for name in ("plain", "s"):
        source = find_splits(tmp_path / f"{name}.parquet")[""]
        assert source.keys == ("1.png", "2.png") and source.classes == ("cat", "dog")
        assert [source.read(i) for i in range(2)] == [b"y", b"x"]


def test_whole_floats_are_labels_and_others_are_refused(tmp_path: Path) -> None:
    image = [b"x", b"y", b"z"]
    pq.write_table(
        pa.table({"image": image, "label": [2.0, float("nan"), None]}), tmp_path / "a.parquet"
    )
    assert find_splits(tmp_path / "a.parquet")[""].labels == (2, -1, -1)
    pq.write_table(pa.table({"image": image, "label": [2.0, 0.5, 1.0]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="has the label 0.5; a label is a whole number or a name"):
        find_splits(tmp_path / "b.parquet")
