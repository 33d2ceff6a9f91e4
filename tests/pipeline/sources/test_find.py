"""Folders and IDX files: keys, labels, splits, and messages about what is not there."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coke.pipeline.sources import Source, find_splits, key_problem


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / os.fsdecode(name.encode())  # its bytes are UTF-8 in any locale
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/10.jpg", "a/x/deep.png", "é/1.webp", "Z/1.tiff")
    touch(tmp_path, "b/notes.txt", "README", ".hidden/1.jpg", "b/.thumb.jpg", "__MACOSX/b/2.jpg")
    source = only(find_splits(tmp_path))
    assert source.keys == ("Z/1.tiff", "a/x/deep.png", "b/10.jpg", "b/2.JPG", "é/1.webp")
    assert source.classes == ("Z", "a", "b", "é")
    assert source.labels == (0, 1, 2, 2, 3)
    assert [other.key for other in source.others] == [
        ".hidden/1.jpg", "__MACOSX/b/2.jpg", "b/.thumb.jpg", "README", "b/notes.txt",
    ]  # fmt: skip
    assert source.read(2) == b"b/10.jpg"


def test_images_in_the_source_itself_mean_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "more/2.jpg")
    source = only(find_splits(tmp_path))
    assert source.keys == ("1.jpg", "more/2.jpg")
    assert source.labels == (-1, -1) and source.classes == ()
    with pytest.raises(ValueError, match=r"1 images lie directly.*'1\.jpg'.*'none'"):
        find_splits(tmp_path, labels="folders")


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    source = only(find_splits(touch(tmp_path, "a/1.jpg", "b/1.jpg"), labels="none"))
    assert source.labels == (-1, -1) and source.classes == ()


def test_splits_share_class_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/1.jpg", "train/c/1.jpg", "val/a/1.jpg", "val/c/1.jpg", "test/9.jpg")
    found = find_splits(tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert {source.classes for source in found.values()} == {("a", "b", "c")}
    assert found["train"].labels == (1, 2) and found["val"].labels == (0, 2)
    assert found["test"].labels == (-1,)
    assert found["val"].keys == ("a/1.jpg", "c/1.jpg")


def test_a_single_split_gives_the_same_keys_as_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "labels.csv")
    above, inside = only(find_splits(tmp_path)), only(find_splits(tmp_path / "train"))
    assert above.keys == inside.keys == ("a/1.jpg", "b/1.jpg")
    assert above.labels == inside.labels == (0, 1)
    assert above.read(1) == inside.read(1)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    source = only(find_splits(touch(tmp_path, "train/1.jpg", "plane/1.jpg")))
    assert source.classes == ("plane", "train")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "src/b/1.jpg")
    (tmp_path / "src/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src/b/loop").symlink_to(tmp_path / "src")
    (tmp_path / "src/b/self").symlink_to(tmp_path / "src/b/self")
    (tmp_path / "src/b/gone.jpg").symlink_to(tmp_path / "nowhere")
    source = only(find_splits(tmp_path / "src"))
    assert source.keys == ("a/1.jpg", "b/1.jpg", "b/gone.jpg")
    with pytest.raises(OSError, match="No such file"):
        source.read(2)


def test_pipes_and_sockets_are_set_apart(tmp_path: Path) -> None:
    """To open a pipe would wait for ever."""
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "a" / "3.jpg"))  # a whole path may be too long
        source = only(find_splits(tmp_path))
    assert source.keys == ("a/1.jpg",)
    assert {other.key: other.reason for other in source.others} == {
        "a/2.jpg": "no regular file: a socket, pipe or device",
        "a/3.jpg": "no regular file: a socket, pipe or device",
    }


def test_a_folder_without_images_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/notes.txt", "c/1.jpg")
    (tmp_path / "empty").mkdir()
    source = only(find_splits(tmp_path))
    assert source.classes == ("a", "c") and source.labels == (0, 1)


def test_pieces_travel_to_other_processes(tmp_path: Path) -> None:
    source = only(find_splits(touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")))
    piece = pickle.loads(pickle.dumps(source.take([0, 2])))
    assert piece.keys == ("a/1.jpg", "b/2.jpg") and piece.labels == (0, 1)
    assert piece.read(1) == b"b/2.jpg" and len(piece) == 2


def test_keys_that_no_line_can_hold() -> None:
    assert key_problem("a/é 1.jpg") is None
    for key in ("a\nb.jpg", "a\r.jpg", "a\u2028b.jpg", "a.jpg\n"):
        assert "line break" in str(key_problem(key))
    assert "UTF-8" in str(key_problem("\udcff.jpg"))


def test_messages_name_what_is_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg", "docs/a.txt", "docs/b/c.npy")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "gone": "gone does not exist",
        "file.jpg": r"file\.jpg is a file of no known kind .* give a folder, or a \.tar",
        "empty": r"no images in .*empty: it is empty",
        "docs": r"no images in .*docs: it holds 2 other files; .*\.jpg, .*\.tiff",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_splits(tmp_path / name)
    with pytest.raises(ValueError, match="labels is 'yes'; choose one of auto, folders, none"):
        find_splits(tmp_path, labels="yes")


def idx_bytes(values: np.ndarray) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


def digits(root: Path, prefix: str, labels: list[int]) -> np.ndarray:
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 28, 20))
    (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
    (root / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(np.array(labels)))
    return pixels


def test_idx_files(tmp_path: Path) -> None:
    pixels = digits(tmp_path, "train", [3, 0, 2])
    digits(tmp_path, "t10k", [1, 1])
    found = find_splits(tmp_path)
    assert list(found) == ["train", "test"]
    train = found["train"]
    assert train.keys == ("00000", "00001", "00002") and train.labels == (3, 0, 2)
    assert train.classes == found["test"].classes == ("0", "1", "2", "3")
    image = Image.open(io.BytesIO(train.take([2]).read(0)))
    assert image.mode == "L" and (np.asarray(image) == pixels[2]).all()


def test_one_idx_split_has_no_name_and_labels_are_optional(tmp_path: Path) -> None:
    digits(tmp_path, "train", [3, 0])
    assert only(find_splits(tmp_path, labels="none")).labels == (-1, -1)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert only(find_splits(tmp_path)).labels == (-1, -1)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is missing"):
        find_splits(tmp_path, labels="folders")


def test_damaged_idx_files(tmp_path: Path) -> None:
    digits(tmp_path, "train", [3, 0])
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.array([1])))
    with pytest.raises(ValueError, match="holds 1 labels and .* 2 images"):
        find_splits(tmp_path)
    labels.write_bytes(idx_bytes(np.array([1, 2]))[:-1])
    with pytest.raises(ValueError, match="has 9 bytes; its header .* asks for 10"):
        find_splits(tmp_path)
    labels.write_bytes(b"\x00\x00\x09\x01" + bytes(6))
    with pytest.raises(ValueError, match="starts with 0x00000901 where .* 0x00000801"):
        find_splits(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b junk")
    with pytest.raises(ValueError, match="cannot be read"):
        find_splits(tmp_path)


def tiny_imagenet(root: Path) -> Path:
    for wnid in ("n02", "n01"):
        touch(root, *(f"train/{wnid}/images/{wnid}_{i}.JPEG" for i in range(2)))
        touch(root, f"train/{wnid}/{wnid}_boxes.txt")
    touch(root, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    touch(root, "wnids.txt", "words.txt")
    notes = "val_1.JPEG\tn02\t0\t32\t44\t62\nval_0.JPEG\tn01\t52\t55\t57\t59\n"
    (root / "val" / "val_annotations.txt").write_text(notes, encoding="utf-8")
    return root


def test_tiny_imagenet(tmp_path: Path) -> None:
    found = find_splits(tiny_imagenet(tmp_path))
    assert list(found) == ["train", "val", "test"]
    assert {source.classes for source in found.values()} == {("n01", "n02")}
    assert found["train"].keys[2] == "n02/images/n02_0.JPEG"
    assert found["train"].labels == (0, 0, 1, 1)
    assert found["val"].keys == ("images/val_0.JPEG", "images/val_1.JPEG")
    assert found["val"].labels == (0, 1) and found["test"].labels == (-1,)
    assert found["val"].others == () and [other.key for other in found["val"].label_files] == [
        "val/val_annotations.txt"
    ]
    assert only(find_splits(tmp_path / "val")).labels == (0, 1)
    assert only(find_splits(tmp_path / "val", labels="none")).labels == (-1, -1)


def test_annotations_that_do_not_fit(tmp_path: Path) -> None:
    notes = tiny_imagenet(tmp_path) / "val" / "val_annotations.txt"
    for text, message in {
        "val_1.JPEG\tn02\n": r"has no line for 1 images \(first: images/val_0\.JPEG\)",
        "val_1.JPEG n02\n": r"line 1 of .*val_annotations\.txt is 'val_1\.JPEG n02'",
    }.items():
        notes.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            find_splits(tmp_path)


def test_a_folder_called_images_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/x/2.jpg")
    assert only(find_splits(tmp_path)).classes == ()
    assert only(find_splits(tmp_path, labels="folders")).classes == ("images",)


def test_class_names_that_are_numbers_are_still_names(tmp_path: Path) -> None:
    source = only(find_splits(touch(tmp_path, "10/1.jpg", "9/1.jpg")))
    assert source.classes == ("10", "9") and source.labels == (0, 1)


def emnist(root: Path, of_set: str, labels: list[int]) -> None:
    for part in ("train", "test"):
        pixels = np.full((len(labels), 28, 28), len(of_set), np.uint8)
        for what, values in (("images-idx3", pixels), ("labels-idx1", np.array(labels))):
            name = f"emnist-{of_set}-{part}-{what}-ubyte.gz"
            (root / name).write_bytes(gzip.compress(idx_bytes(values)))


def test_emnist_has_several_sets(tmp_path: Path) -> None:
    emnist(tmp_path, "letters", [1, 26])
    found = find_splits(tmp_path)
    assert list(found) == ["train", "test"]
    assert found["train"].labels == (1, 26) and len(found["test"].classes) == 27
    emnist(tmp_path, "digits", [9, 0, 3])
    with pytest.raises(
        ValueError, match="IDX files of several sets: emnist-digits, emnist-letters"
    ):
        find_splits(tmp_path)
    one = only(find_splits(tmp_path / "emnist-digits-test-images-idx3-ubyte.gz"))
    assert one.labels == (9, 0, 3)
    assert b"\x06" in one.read(0) and b"\x07" not in one.read(0)


def test_idx_files_below_the_source_and_labels_of_qmnist(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits(raw, "train", [3, 0])
    assert only(find_splits(tmp_path)).labels == (3, 0)
    (raw / "train-labels-idx1-ubyte").unlink()
    columns = np.array([[7, 1], [8, 2]], dtype=">i4")
    header = bytes([0, 0, 0x0C, 2]) + b"".join(n.to_bytes(4, "big") for n in columns.shape)
    (raw / "train-labels-idx2-int").write_bytes(header + columns.tobytes())
    assert only(find_splits(tmp_path)).labels == (7, 8)
    # Beside other images, IDX files further down are other files.
    touch(tmp_path, "cat/1.jpg")
    assert only(find_splits(tmp_path)).keys == ("cat/1.jpg",)
