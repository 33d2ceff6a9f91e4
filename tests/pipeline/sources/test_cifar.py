"""CIFAR's own batches, pickled and binary: the same ids, labels and pixels; nothing is run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coke.pipeline.sources import Source, find_splits
from coke.pipeline.sources.plain_pickle import load_plain

NAMES = ["bird", "ant"]  # not in the order of the alphabet: labels keep their numbers


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """(7, 3, 32, 32): five images of train in batches of 3 and 2, two of test."""
    return np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32)).astype(np.uint8)


def pickled(folder: Path, pixels: NDArray[np.uint8], labels: list[int]) -> Path:
    folder.mkdir(parents=True)

    def batch(name: str, rows: slice) -> None:
        about = {b"data": pixels[rows].reshape(-1, 3072), b"labels": labels[rows]}
        (folder / name).write_bytes(pickle.dumps(about, protocol=2))

    batch("data_batch_1", slice(0, 3))
    batch("data_batch_2", slice(3, 5))
    batch("test_batch", slice(5, 7))
    meta = {b"label_names": [name.encode() for name in NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    (folder / "readme.html").write_text("about", encoding="utf-8")
    return folder


def binary(folder: Path, pixels: NDArray[np.uint8], labels: list[int]) -> Path:
    folder.mkdir(parents=True)
    records = [
        bytes([label]) + image.tobytes() for label, image in zip(labels, pixels, strict=True)
    ]
    (folder / "data_batch_1.bin").write_bytes(b"".join(records[:3]))
    (folder / "data_batch_2.bin").write_bytes(b"".join(records[3:5]))
    (folder / "test_batch.bin").write_bytes(b"".join(records[5:]))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n", encoding="utf-8")
    return folder


def seen(source: Source) -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(io.BytesIO(source.read(i)))) for i in range(len(source))]


@pytest.mark.parametrize("write", [pickled, binary])
@pytest.mark.parametrize("folder", ["", "cifar-10-batches"])
def test_both_forms_of_cifar10(
    write: Any, folder: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    labels = [0, 1, 1, 0, 1, 1, 0]
    write(tmp_path / "src" / folder, pixels, labels)
    found = find_splits(tmp_path / "src")
    assert list(found) == ["train", "test"]
    train, test = found["train"], found["test"]
    assert train.keys == ("00000", "00001", "00002", "00003", "00004")
    assert train.labels == (0, 1, 1, 0, 1) and test.labels == (1, 0)
    assert train.classes == test.classes == ("bird", "ant")
    images = seen(train.take(range(5))) + seen(test)
    assert all((a == b.transpose(1, 2, 0)).all() for a, b in zip(images, pixels, strict=True))


def test_cifar100_has_its_fine_labels(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "py").mkdir()
    about = {b"data": pixels.reshape(-1, 3072), b"fine_labels": [1, 0, 1, 0, 1, 0, 1],
             b"coarse_labels": [3] * 7}  # fmt: skip
    (tmp_path / "py" / "train").write_bytes(pickle.dumps(about))
    meta = {b"fine_label_names": [b"bird", b"ant"], b"coarse_label_names": [b"x"] * 4}
    (tmp_path / "py" / "meta").write_bytes(pickle.dumps(meta))
    (tmp_path / "bin").mkdir()
    records = [bytes([3, (i + 1) % 2]) + image.tobytes() for i, image in enumerate(pixels)]
    (tmp_path / "bin" / "train.bin").write_bytes(b"".join(records))
    (tmp_path / "bin" / "fine_label_names.txt").write_text("bird\nant\n", encoding="utf-8")
    for form in ("py", "bin"):
        source = find_splits(tmp_path / form)[""]
        assert source.labels == (1, 0, 1, 0, 1, 0, 1) and source.classes == ("bird", "ant")


def test_batches_that_are_missing_or_damaged(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    src = pickled(tmp_path / "a", pixels, [0] * 7)
    (src / "data_batch_1").rename(src / "data_batch_3")
    with pytest.raises(ValueError, match=r"data_batch_1 is missing, and ids are counted over all"):
        find_splits(src)
    (src / "data_batch_3").rename(src / "data_batch_1")
    (src / "data_batch_2").write_bytes((src / "data_batch_2").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"data_batch_2 is no batch of CIFAR: it is no whole pick"):
        find_splits(src)
    src = binary(tmp_path / "b", pixels, [0] * 7)
    (src / "data_batch_2.bin").write_bytes(bytes(3072))
    with pytest.raises(ValueError, match=r"data_batch_2\.bin has 3072 bytes, no multiple of 3073"):
        find_splits(src)


class Evil:
    """What a pickle can do to who loads it: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_data(protocol: int, tmp_path: Path) -> None:
    plain: dict[bytes, Any] = {
        b"a": [1, "é", None, 2.5], b"bytes": b"\x00\xff", b"big": np.arange(3, dtype=">i4"),
        b"grid": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    }  # fmt: skip
    found = load_plain(pickle.dumps(plain, protocol))
    assert found.keys() == plain.keys() and found[b"a"] == plain[b"a"]
    assert found[b"bytes"] == b"\x00\xff"
    for name in (b"big", b"grid"):
        assert np.array_equal(found[name], plain[name]) and found[name].dtype == plain[name].dtype
    evil = pickle.dumps([Evil(tmp_path / "made")], protocol)
    with pytest.raises(ValueError, match=r"it asks for \S+, which is neither an array nor plain"):
        load_plain(evil)
    assert not (tmp_path / "made").exists()
    pickle.loads(evil)
    assert (tmp_path / "made").exists()
    with pytest.raises(ValueError, match="array of 'O8'; known are arrays of numbers"):
        load_plain(pickle.dumps(np.array([None]), protocol))
