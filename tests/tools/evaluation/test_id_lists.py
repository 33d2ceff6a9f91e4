"""Lists of images: keys, file names and ids, and lines that mean no image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.id_lists import read_list, write_list


@pytest.fixture
def index(stripes: Path) -> ImageIndex:
    """60 images: ``horizontal/000.jpg``, ``horizontal/002.jpg``, ..., ``vertical/001.jpg``, ..."""
    return ImageIndex(stripes / "train")


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "list.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ("horizontal/004.jpg", "vertical/001.jpg"),
        ("001.jpg", "004.jpg"),
        ("004", "vertical/001"[-3:] + ".jpg", ""),
        ("  horizontal/004.jpg\r", "", "001"),
    ],
)
def test_keys_file_names_and_names_without_ending_are_the_same_images(
    index: ImageIndex, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    ids = [index.keys.index("horizontal/004.jpg"), index.keys.index("vertical/001.jpg")]
    assert read_list(listed(tmp_path, *lines), index).tolist() == sorted(ids)


def test_whole_numbers_are_ids(index: ImageIndex, tmp_path: Path) -> None:
    assert read_list(listed(tmp_path, "31", "2", "0"), index).tolist() == [0, 2, 31]


def test_what_was_written_is_read_back(index: ImageIndex, tmp_path: Path) -> None:
    ids = np.array([3, 17, 40])
    write_list(tmp_path / "a.txt", index, ids)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8").split("\n")[0] == index.keys[3]
    assert read_list(tmp_path / "a.txt", index).tolist() == ids.tolist()
    with pytest.raises(FileExistsError):
        write_list(tmp_path / "a.txt", index, ids)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("horizontal/000.jpg", "cat/1.jpg"), r"line 2: 'cat/1.jpg' is no key, file name or id of"),
        (("0", "60"), r"line 2: '60' is no key, file name or id of .*such as 'horizontal/000.jpg'"),
        (("horizontal/000.jpg", "", "000"), r"line 3: '000' names the same image as line 1"),
        (("horizontal/000.jpg",), r"has no image of 1 of 2 classes: 'vertical'; list at least one"),
        (("", " "), "names no image; write one key, file name or id a line"),
    ],
)
def test_a_line_that_means_no_image_is_named(
    index: ImageIndex, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_list(listed(tmp_path, *lines), index)


def test_a_name_of_several_images_and_an_image_that_is_gone(
    index: ImageIndex, tmp_path: Path
) -> None:
    index.__dict__["keys"] = [f"{'ab'[i % 2]}/{i // 2}.jpg" for i in range(60)]
    with pytest.raises(ValueError, match=r"'3.jpg' is the name of 2 images, such as 'a/3.jpg' and"):
        read_list(listed(tmp_path, "3.jpg"), index)
    view = index.without(np.array([6]))
    with pytest.raises(
        ValueError, match="'a/3.jpg' is an image that is gone or has no class label"
    ):
        read_list(listed(tmp_path, "a/3.jpg"), view)


def test_a_file_that_is_no_text_or_not_there(index: ImageIndex, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes", "nothing"):
        with pytest.raises(ValueError, match=rf"--ids .*{name} cannot be read as text"):
            read_list(tmp_path / name, index)
