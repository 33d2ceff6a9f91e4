"""Features in files: every format gives the same rows, and says what is wrong with others."""

from __future__ import annotations

import os
import pickle
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coke.files.npy_rows import NpyRows
from coke.tools.features import feature_files
from coke.tools.features.feature_files import Features, open_features
from coke.tools.features.formats import SUFFIXES, TEXT_SUFFIXES

X = np.arange(70, dtype=np.float32).reshape(10, 7) + 1
IDS = np.array([3, 1, 4, 15, 9, 2, 6, 5, 35, 8])
FLOAT32 = ("float32", "float16")  # types of files whose numbers float32 holds
KEYS = [f"k{i}" for i in range(10)]


def write(path: Path, x: NDArray[Any], ids: NDArray[Any] | None = None, **more: Any) -> Path:
    """Features in the format of the path's suffix."""
    members = {"features": x, **more} | ({} if ids is None else {"ids": ids})
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, **members)
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
        columns = {"emb": pa.array(list(x), pa.list_(pa.from_numpy_dtype(x.dtype)))}
        write_table(path, columns if ids is None else {"id": ids, **columns})
    elif path.suffix in TEXT_SUFFIXES:
        columns = {} if ids is None else {"id": ids.tolist()}
        columns |= {f"f{j}": x[:, j].tolist() for j in range(x.shape[1])}
        separator = "\t" if path.suffix == ".tsv" else ","
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        lines = [separator.join(map(str, row)) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        torch_file = pytest.importorskip("safetensors.torch", reason="safetensors is optional")
        torch_file.save_file({k: torch.from_numpy(v.copy()) for k, v in members.items()}, path)
    return path


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table(columns), path, row_group_size=3)
    return path


def rows_of(features: Features, *, directed: bool = False) -> NDArray[Any]:
    return np.concatenate(list(features.batches(directed=directed)))


def ids_of(features: Features) -> list[int]:
    ids: list[int] = np.concatenate(list(features.ids())).tolist()
    return ids


def keys_of(features: Features) -> list[str]:
    return list(chain.from_iterable(features.keys()))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows, three ids at a time: several batches, and one that is not full."""
    monkeypatch.setattr(feature_files, "_BATCH_BYTES", 4 * 4 * 7)
    monkeypatch.setattr(feature_files, "_ID_BATCH", 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_rows_and_ids(suffix: str, dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", X.astype(dtype), IDS)
    if suffix == ".npy":
        np.save(tmp_path / "ids.npy", IDS)
    features = open_features(path)
    assert (features.rows, features.width) == (10, 7)
    assert features.dtype == ("float64" if suffix in TEXT_SUFFIXES else dtype)
    assert rows_of(features).dtype == (np.float32 if features.dtype in FLOAT32 else np.float64)
    assert np.array_equal(rows_of(features), X)
    assert next(len(b) for b in features.batches(directed=True)) <= 4
    assert features.has_ids and not features.has_keys
    assert ids_of(features) == IDS.tolist()
    features.check_ids()
    assert (features.mapped is not None) == (suffix == ".npy")
    if features.mapped is not None:
        assert isinstance(features.mapped, np.memmap) and np.array_equal(features.mapped, X)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_read_in_natural_order(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("ignored", encoding="utf-8")
    write(tmp_path / f".hidden{suffix}", X[:, :2])
    for name, part in (("part-10", X[7:]), ("part-2", X[2:7]), ("part-1", X[:2])):
        write(tmp_path / f"{name}{suffix}", part)
    features = open_features(tmp_path)
    assert [file.path.stem for file in features.files] == ["part-1", "part-2", "part-10"]
    assert np.array_equal(rows_of(features), X)
    assert not features.has_ids
    assert (features.mapped is not None) == (suffix == ".npy")
    if features.mapped is not None:
        assert np.array_equal(features.mapped[0:10], X)
    np.save(tmp_path / "ids.npy", IDS)
    assert ids_of(open_features(tmp_path)) == IDS.tolist()


def test_a_folder_with_features_npy_is_one_array_with_companions(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", X)
    np.save(tmp_path / "ids.npy", IDS)
    np.save(tmp_path / "classes.npy", np.zeros(10, dtype=np.int32))
    (tmp_path / "keys.txt").write_text("".join(f"{key}\n" for key in KEYS), encoding="utf-8")
    for path in (tmp_path, tmp_path / "features.npy"):
        features = open_features(path)
        assert features.mapped is not None
        assert np.array_equal(rows_of(features), X)
        assert ids_of(features) == IDS.tolist() and keys_of(features) == KEYS
    (tmp_path / "keys.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"keys\.txt has 2 lines, features\.npy .* 10 rows"):
        open_features(tmp_path)


def test_ids_may_be_texts(tmp_path: Path) -> None:
    features = open_features(write(tmp_path / "x.npz", X, np.array(KEYS)))
    assert features.has_keys and not features.has_ids and keys_of(features) == KEYS
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "ids.npy", np.array(KEYS))
    features = open_features(tmp_path / "x.npy")
    assert features.has_keys and not features.has_ids and keys_of(features) == KEYS


def test_parquet_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    fixed = pa.FixedSizeListArray.from_arrays(X.ravel(), 7)
    path = write_table(tmp_path / "a.parquet", {"key": KEYS, "id": IDS, "label": IDS, "emb": fixed})
    features = open_features(path)
    assert np.array_equal(rows_of(features), X)
    assert ids_of(features) == IDS.tolist() and keys_of(features) == KEYS

    # A column per dimension: in the order of their numbers, other numbers are no dimensions.
    shuffled = {f"f{j}": X[:, j] for j in (3, 0, 6, 5, 1, 2, 4)}
    features = open_features(write_table(tmp_path / "b.parquet", {"label": IDS} | shuffled))
    assert np.array_equal(rows_of(features), X)
    features = open_features(
        write_table(tmp_path / "c.parquet", {"n": IDS, "x": X[:, 0], "y": X[:, 1]})
    )
    assert np.array_equal(rows_of(features), X[:, :2])

    both = {"a": fixed, "b": fixed, **shuffled}
    path = write_table(tmp_path / "d.parquet", both)
    with pytest.raises(ValueError, match=r"several columns of lists: a \(.*--key"):
        open_features(path)
    assert open_features(path, "b").files[0].what == "column 'b'"
    assert np.array_equal(rows_of(open_features(path, "f")), X)
    with pytest.raises(ValueError, match=r"no column of lists 'z'.*its columns are a \("):
        open_features(path, "z")


def test_the_member_is_chosen_by_key(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is optional")
    for suffix in (".npz", ".safetensors"):
        path = write(tmp_path / f"x{suffix}", X, other=X + 1)
        assert np.array_equal(rows_of(open_features(path)), X), "`features` needs no key"
        assert np.array_equal(rows_of(open_features(path, "other")), X + 1)
        with pytest.raises(ValueError, match=r"no 'third' \(--key\); it holds .*other \(10, 7\)"):
            open_features(path, "third")
    np.savez(tmp_path / "two.npz", a=X, b=X, c=IDS)
    with pytest.raises(ValueError, match=r"several arrays \(N, D\): a \(10, 7\), b .*--key NAME"):
        open_features(tmp_path / "two.npz")
    np.savez(tmp_path / "one.npz", a=X, c=IDS)
    assert np.array_equal(rows_of(open_features(tmp_path / "one.npz")), X)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    torch_file = pytest.importorskip("safetensors.torch", reason="safetensors is optional")
    torch_file.save_file({"x": torch.from_numpy(X).bfloat16()}, tmp_path / "x.safetensors")
    assert np.array_equal(rows_of(open_features(tmp_path / "x.safetensors")), X)


def test_columns_first_is_read_row_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    features = open_features(tmp_path / "x.npy")
    assert np.array_equal(rows_of(features), X)
    assert features.mapped is None, "reading rows at random would touch the whole file"
    np.savez(tmp_path / "x.npz", features=np.asfortranarray(X))
    with pytest.raises(ValueError, match="column by column"):
        open_features(tmp_path / "x.npz")


def test_files_that_are_no_features(tmp_path: Path) -> None:
    def error(name: str, key: str | None = None) -> str:
        with pytest.raises(ValueError, match=".") as caught:
            open_features(tmp_path / name, key)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "gone.npy do not exist" in error("gone.npy")
    (tmp_path / "x.txt").write_text("1 2 3", encoding="utf-8")
    assert "x.txt are no .npy, .npz" in error("x.txt")
    (tmp_path / "empty").mkdir()
    assert "holds no feature files (.npy" in error("empty")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "manifest.json").write_text("{}", encoding="utf-8")
    assert "is a data set of images" in error("images")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "holds pickled Python objects" in error("o.npy")
    (tmp_path / "p.npy").write_bytes(pickle.dumps(X))
    assert "p.npy is no .npy file" in error("p.npy")
    np.savez(tmp_path / "o.npz", features=np.array([{"a": 1}], dtype=object))
    assert "holds pickled Python objects" in error("o.npz")
    np.save(tmp_path / "flat.npy", X[0])
    assert "has shape (7,), features are (N, D)" in error("flat.npy")
    np.save(tmp_path / "cube.npy", X.reshape(2, 5, 7))
    assert "has shape (2, 5, 7)" in error("cube.npy")
    np.save(tmp_path / "none.npy", X[:0])
    assert "has shape (0, 7)" in error("none.npy")
    np.save(tmp_path / "complex.npy", X.astype(complex))
    assert "type complex128; give real numbers" in error("complex.npy")
    np.save(tmp_path / "x.npy", X)
    assert "--key a names a part" in error("x.npy", "a")
    cut = (tmp_path / "x.npy").read_bytes()[:-8]
    (tmp_path / "cut.npy").write_bytes(cut)
    assert "is cut short: 400 bytes of 408" in error("cut.npy")
    for name in ("bad.npz", "bad.npy"):
        (tmp_path / name).write_bytes(b"")
        assert f"{name} is no {name[3:]} file" in error(name)
    np.save(tmp_path / "ids.npy", IDS[:4])
    assert "ids.npy has shape (4,), but" in error("x.npy")
    np.save(tmp_path / "ids.npy", IDS / 2)
    assert "type float64; ids are whole numbers" in error("x.npy")


def test_damaged_optional_formats(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    pytest.importorskip("safetensors", reason="safetensors is optional")
    for suffix in (".parquet", ".safetensors"):
        (tmp_path / f"bad{suffix}").write_bytes(b"not at all" * 10)
        with pytest.raises(ValueError, match=f"no {suffix[1:]} file"):
            open_features(tmp_path / f"bad{suffix}")

    def error(name: str, columns: dict[str, Any]) -> str:
        path = write_table(tmp_path / f"{name}.parquet", columns)
        with pytest.raises(ValueError, match=".") as caught:
            rows_of(open_features(path))
        return str(caught.value)

    ragged = pa.array([[1.0, 2.0]] * 5 + [[1.0]])
    assert "has 1 numbers in row 5, 2 in row 0" in error("ragged", {"e": ragged})
    missing = pa.array([[1.0, 2.0]] * 4 + [None])
    assert "no list in row 4" in error("missing", {"e": missing})
    hole = pa.array([[1.0, 2.0]] * 4 + [[1.0, None]])
    assert "a number missing in row 4" in error("hole", {"e": hole})
    null = pa.array([1.0, 2.0, 3.0, 4.0, None])
    assert "no value in row 4 of column f0" in error("null", {"f0": null, "f1": null})
    mixed = {"f0": np.zeros(2, np.float32), "f1": np.zeros(2)}
    assert "column f0 of float and column f1 of double" in error("mixed", mixed)
    assert "no column of lists and no columns of" in error("texts", {"key": KEYS})
    assert "has no rows" in error("empty", {"f0": np.zeros(0)})
    two = {"a0": X[:, 0], "b0": X[:, 1]}
    assert "several families of numbered columns: a... (1), b... (1)" in error("two", two)


@pytest.mark.parametrize(("suffix", "package"), [("parquet", "pyarrow"), ("safetensors",) * 2])
def test_a_missing_package_is_named(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package}: pip install 'coke\[{suffix}\]'"):
        open_features(tmp_path / f"x.{suffix}")


def test_folders_that_do_not_belong_together(tmp_path: Path) -> None:
    def error(**files: NDArray[Any]) -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, x in files.items():
            np.save(tmp_path / name, x)
        with pytest.raises(ValueError, match=".") as caught:
            open_features(tmp_path)
        return str(caught.value)

    assert "b.npy has rows of width 3" in error(a=X, b=X[:, :3])
    assert "b.npy has rows of type float64" in error(a=X, b=X.astype(float))
    np.savez(tmp_path / "c.npz", features=X)
    with pytest.raises(ValueError, match=r"mixes kinds of files: a\.npy and c\.npz"):
        open_features(tmp_path)
    for name, ids in (("a.npz", IDS), ("b.npz", None)):
        write(tmp_path / name, X, ids)
    for name in ("a.npy", "b.npy", "c.npz"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"one of .*a\.npz and .*b\.npz has ids"):
        open_features(tmp_path)


def test_files_of_a_folder_hold_the_same_column(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", {name: list(X)})
    with pytest.raises(ValueError, match=r"b\.parquet has rows of column 'b', .* of column 'a'"):
        open_features(tmp_path)


def test_values_that_cannot_be_clustered_are_named_by_file_and_row(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X.astype(np.float64))
    for value, column in ((np.nan, 2), (-np.inf, 3)):
        x = X.astype(np.float64)
        x[5, column] = value
        np.save(tmp_path / "b.npy", x)
        with pytest.raises(ValueError, match=rf"b\.npy has .* in row 5, column {column}"):
            rows_of(open_features(tmp_path))
    x = X.astype(np.float64)
    x[6] = 0
    np.save(tmp_path / "b.npy", x)
    with pytest.raises(ValueError, match=r"b\.npy has a zero vector in row 6"):
        rows_of(open_features(tmp_path), directed=True)
    assert len(rows_of(open_features(tmp_path))) == 20
    huge = np.full((3, 7), 3e38, np.float32)  # whose sum is not finite
    np.save(tmp_path / "huge.npy", huge)
    assert np.array_equal(rows_of(open_features(tmp_path / "huge.npy")), huge)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_float64_keeps_its_digits(suffix: str, tmp_path: Path) -> None:
    """Float32 would round metres of UTM to a quarter of a metre."""
    far = X.astype(np.float64) + 4_000_000.125
    assert np.array_equal(rows_of(open_features(write(tmp_path / f"x{suffix}", far))), far)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_changes_while_it_is_read_is_named(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", X)
    features = open_features(path)
    features.check_unchanged()
    write(path, X[:9])
    with pytest.raises(ValueError, match=rf"x\{suffix} has changed while it was read; run again"):
        features.check_unchanged()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x\.npy is no regular file"):
        open_features(tmp_path / "x.npy")
    (tmp_path / "x.csv").mkdir()
    np.save(tmp_path / "1.npy", X)
    (tmp_path / "2.npy").symlink_to("gone")
    (tmp_path / "x.npy").unlink()
    assert open_features(tmp_path).rows == 10


def test_an_id_that_is_there_twice_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "ids.npy", np.where(IDS == 8, 3, IDS))
    with pytest.raises(ValueError, match="id 3 more than once"):
        open_features(tmp_path / "x.npy").check_ids()
    np.save(tmp_path / "ids.npy", np.array([0, 1, 2, 2, 3, 4, 5, 6, 7, 8]))  # across two batches
    with pytest.raises(ValueError, match="id 2 more than once"):
        open_features(tmp_path / "x.npy").check_ids()


def test_rows_written_one_after_the_other_are_an_npy_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    cut = NpyRows(path, (10, 7), np.float32)
    cut.append(X[:6])
    cut.close()
    with NpyRows(path, (10, 7), np.float32, done=4) as file:
        file.append(X[4:5])
        file.append(X[5:])
    assert np.array_equal(np.load(path), X)
    np.save(tmp_path / "same.npy", X)
    assert path.read_bytes() == (tmp_path / "same.npy").read_bytes()
