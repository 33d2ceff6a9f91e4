"""Which folders are splits: their names, folders around them, and what lies beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.pipeline.sources import find_splits
from coke.pipeline.sources.keys import to_system
from coke.pipeline.sources.splits import by_split, split_folders


def touch(root: Path, *names: str) -> Path:
    """Files of these names, whose bytes are UTF-8 under every locale."""
    for name in names:
        file = root / to_system(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return root


def layout(root: Path, *folders: str) -> Path:
    """Two classes of one image each in every folder."""
    return touch(root, *(f"{folder}/{c}/1.jpg" for folder in folders for c in "ab"))


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "val", "test"], {"train": ["train"], "val": ["val"], "test": ["test"]}),
        (["Training", "Testing"], {"train": ["Training"], "test": ["Testing"]}),
        (["TRAIN", "VALID"], {"train": ["TRAIN"], "valid": ["VALID"]}),
        (["train2017", "val2017"], {"train": ["train2017"], "val": ["val2017"]}),
        (["train.X1", "train.X2", "val.X"], {"train": ["train.X1", "train.X2"], "val": ["val.X"]}),
        (["train", "test1"], {"train": ["train"], "test": ["test1"]}),
        (["training_set", "test_set"], {"train": ["training_set"], "test": ["test_set"]}),
        (["seg_train", "seg_test"], {"train": ["seg_train"], "test": ["seg_test"]}),
        (["TrainImages", "TestImages"], {"train": ["TrainImages"], "test": ["TestImages"]}),
        (["train", "dev"], {"train": ["train"], "dev": ["dev"]}),
        (["train", "test", "unlabeled"], {"train": ["train"], "test": ["test"],
                                          "unlabeled": ["unlabeled"]}),
        (["train"], {"train": ["train"]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrapper", ["", "chest_xray/", "a/b/c/"])
def test_names_of_splits(folders: list[str], splits: dict[str, list[str]], wrapper: str) -> None:
    found = split_folders([f"{wrapper}{folder}/a/1.jpg" for folder in folders])
    assert found is not None and found.folders == splits and found.wrapper == wrapper


@pytest.mark.parametrize(
    "folders",
    [
        ["train", "plane"],  # classes: a train is one of the vehicles
        ["train station", "test tube", "pier"],
        ["train_1", "train_2"],
        ["extra", "dev"],  # nothing else says that they are splits
        ["cat"],
        ["unlabeled", "cat"],
    ],
)
def test_names_of_classes(folders: list[str]) -> None:
    assert split_folders([f"{folder}/1.jpg" for folder in folders]) is None


def test_a_folder_around_the_splits_changes_no_key(tmp_path: Path) -> None:
    plain = find_splits(layout(tmp_path / "plain", "train", "test"))
    wrapped = find_splits(layout(tmp_path / "wrapped", "in/here/train", "in/here/test"))
    assert list(plain) == list(wrapped) == ["train", "test"]
    for split in plain:
        assert plain[split].keys == wrapped[split].keys == ("a/1.jpg", "b/1.jpg")
        assert wrapped[split].labels == (0, 1) and wrapped[split].classes == ("a", "b")


def test_a_split_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    layout(tmp_path, "seg_train/seg_train", "seg_test/seg_test")
    touch(tmp_path, "seg_pred/seg_pred/1.jpg")
    found = find_splits(tmp_path)
    assert list(found) == ["train", "test", "pred"]
    assert found["train"].keys == ("a/1.jpg", "b/1.jpg") and found["train"].labels == (0, 1)
    assert found["train"].read(1) == b"seg_train/seg_train/b/1.jpg"
    assert found["pred"].labels == (-1,)


def test_parts_of_a_split_are_one(tmp_path: Path) -> None:
    touch(tmp_path, "train.X1/b/1.jpg", "train.X2/a/1.jpg", "train.X2/a/notes.txt", "val.X/a/9.jpg")
    train = find_splits(tmp_path)["train"]
    assert train.keys == ("a/1.jpg", "b/1.jpg") and train.labels == (0, 1)
    assert train.read(0) == b"train.X2/a/1.jpg"
    assert [other.key for other in train.others] == ["train.X2/a/notes.txt"]
    # Where a key occurs in two parts, all keys have their part in front; classes stay.
    touch(tmp_path, "train.X1/a/1.jpg")
    train = find_splits(tmp_path)["train"]
    assert train.keys == ("train.X1/a/1.jpg", "train.X1/b/1.jpg", "train.X2/a/1.jpg")
    assert train.labels == (0, 1, 0) and train.classes == ("a", "b")


def test_unlabeled_images_are_a_split_without_labels(tmp_path: Path) -> None:
    layout(tmp_path, "train", "test")
    touch(tmp_path, "unlabeled/x/1.jpg", "unlabeled/x/2.jpg")
    found = find_splits(tmp_path)
    assert found["unlabeled"].labels == (-1, -1) and found["train"].classes == ("a", "b")
    assert "None of the 2 images of split unlabeled has a label." in found.notes
    assert find_splits(tmp_path, labels="folders")["unlabeled"].classes == ("a", "b", "x")


def test_what_lies_beside_the_splits_is_named(tmp_path: Path) -> None:
    layout(tmp_path, "w/train", "w/test")
    touch(tmp_path, "w/masks/1.png", "w/masks/2.png", "w/stray.jpg", "README", ".DS_Store")
    found = find_splits(tmp_path)
    assert {other.key: other.reason.split(":")[0] for other in found.beside} == {
        "w/masks/1.png": "in no split", "w/masks/2.png": "in no split",
        "w/stray.jpg": "in no split", "README": "not an image file", ".DS_Store": "hidden",
    }  # fmt: skip
    assert found.notes == [
        "2 images in masks/ are in no split (train, test): rejected.tsv lists what is left out.",
        "1 image outside of folders is in no split (train, test): rejected.tsv lists what is left "
        "out.",
    ]
    assert found.there == 9


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    layout(tmp_path, "train")
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*/test: it is empty"):
        find_splits(tmp_path)
    touch(tmp_path, "test/a/notes.txt")
    with pytest.raises(ValueError, match=r"no images in .*/test: it holds 1 other file"):
        find_splits(tmp_path)


def test_notes_about_labels_that_were_not_found(tmp_path: Path) -> None:
    touch(tmp_path / "one", "Pets/cat/1.jpg", "Pets/dog/2.jpg")
    (note,) = find_splits(tmp_path / "one").notes
    assert note.startswith("All images have the one class Pets. If the 2 folders in it are the")
    touch(tmp_path / "loose", "1.jpg", "cat/2.jpg", "dog/3.jpg")
    (note,) = find_splits(tmp_path / "loose").notes
    assert note.startswith("1 of the 3 images of ") and "no folder is taken for a class" in note
    touch(tmp_path / "flat", "1.jpg", "2.jpg", "labels.csv")
    assert find_splits(tmp_path / "flat").notes == [
        f"No labels were read from {tmp_path / 'flat' / 'labels.csv'}. If it has a line per "
        "image, give it as the source, as a .csv or .tsv of paths and labels."
    ]
    assert find_splits(tmp_path / "flat", labels="none").notes == []


@pytest.mark.parametrize(
    "images",
    [
        ("images/1.jpg", "images/2.jpg"),  # a folder called images has no class
        ("train/1.jpg", "train/2.jpg"),
        ("train/1.jpg", "test/2.jpg"),
        ("train/a/1.jpg", "test/2.jpg"),  # test has no label
        ("pictures/1.jpg", "pictures/2.jpg"),  # all images have one class
    ],
)
def test_a_table_beside_images_that_lack_labels_is_named(
    images: tuple[str, ...], tmp_path: Path
) -> None:
    touch(tmp_path, *images, "train.csv", "test.csv")
    tables = f"{tmp_path / 'test.csv'}, {tmp_path / 'train.csv'}"
    note = f"No labels were read from {tables}. If one of them has a line per image, give it as the"
    assert any(found.startswith(note) for found in find_splits(tmp_path).notes)
    assert not any("No labels" in found for found in find_splits(tmp_path, labels="none").notes)


def test_a_table_beside_labelled_images_is_not_named(tmp_path: Path) -> None:
    assert find_splits(touch(tmp_path, "a/1.jpg", "b/2.jpg", "sizes.csv")).notes == []
    touch(tmp_path / "s", "train/a/1.jpg", "test/b/2.jpg", "unlabeled/3.jpg", "sizes.csv")
    assert not any("No labels" in found for found in find_splits(tmp_path / "s").notes)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["cat/train", "cat/test", "dog/train", "dog/test"], "cat/test and cat/train"),
        (["images/train", "images/val", "masks/train"], "images/train and images/val"),
        (["bounding_box_train", "bounding_box_test", "query"], "bounding_box_test and bounding"),
        (["deep/down/Training", "deep/down/Testing", "deep"], "deep/down/Testing and deep/down/T"),
    ],
)
def test_names_of_splits_that_make_no_splits_are_noted(
    folders: list[str], named: str, tmp_path: Path
) -> None:
    found = find_splits(touch(tmp_path, *(f"{folder}/1.jpg" for folder in folders)))
    (note,) = [note for note in found.notes if "named for splits" in note]
    assert list(found) == [""] and f"though folders such as {named}" in note


@pytest.mark.parametrize(
    "folders", [["train", "plane"], ["train station", "test tube"], ["a/train", "b/training"]]
)
def test_names_that_only_sound_like_splits_are_not_noted(
    folders: list[str], tmp_path: Path
) -> None:
    assert find_splits(touch(tmp_path, *(f"{folder}/1.jpg" for folder in folders))).notes == []


def test_classes_that_hold_the_same_folders_are_noted(tmp_path: Path) -> None:
    (note,) = find_splits(layout(tmp_path / "folds", "fold1", "fold2")).notes
    assert note.startswith("The classes (fold1, fold2) hold folders of the same names (a, b).")
    assert find_splits(touch(tmp_path / "tree", "x/p/1.jpg", "x/q/1.jpg", "y/r/1.jpg")).notes == []


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("\u00e9", "e\u0301"), ("cat", "cat ")])
def test_classes_that_look_the_same_are_noted(pair: tuple[str, str], tmp_path: Path) -> None:
    found = find_splits(touch(tmp_path, *(f"{name}/1.jpg" for name in (*pair, "dog"))))
    assert len(found[""].classes) == 3
    (note,) = found.notes
    assert all(ascii(name) in note for name in pair) and "are two classes" in note


VAL = ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")


def test_imagenet_with_a_flat_val(tmp_path: Path) -> None:
    touch(tmp_path, "train/n02/1.JPEG", "train/n01/1.JPEG", *(f"val/{name}" for name in VAL))
    found = find_splits(tmp_path)
    assert found["val"].labels == (-1, -1) and found["val"].keys == VAL
    assert "have no labels beside them: add imagenet_2012_validation_synset" in found.notes[0]
    assert found.notes[1] == "None of the 2 images of split val has a label."
    for place in ("LOC_val_solution.csv", "val/LOC_val_solution.csv"):
        truth = tmp_path / place
        truth.write_text(f"ImageId,Boxes\n{VAL[0][:-5]},n02 1 2\n{VAL[1][:-5]},n01 1 2\n".replace(
            "n0", "n0000000"), encoding="utf-8")  # fmt: skip
        touch(tmp_path, "train/n00000001/1.JPEG", "train/n00000002/1.JPEG")
        found = find_splits(tmp_path)
        # The keys are those of class folders, as for the official tar.
        assert found["val"].keys == (f"n00000001/{VAL[1]}", f"n00000002/{VAL[0]}")
        classes = [found["val"].classes[label] for label in found["val"].labels]
        assert classes == ["n00000001", "n00000002"] and found.notes == []
        assert found["val"].read(0) == f"val/{VAL[1]}".encode()
        assert [other.key for other in found["val"].label_files] == [place]
        assert find_splits(tmp_path, labels="none")["val"].keys == found["val"].keys
        truth.unlink()


def test_imagenet_as_kaggle_packs_it(tmp_path: Path) -> None:
    inner = "ILSVRC/Data/CLS-LOC"
    touch(tmp_path, f"{inner}/train/n00000001/1.JPEG", f"{inner}/train/n00000002/1.JPEG")
    touch(tmp_path, *(f"{inner}/val/{name}" for name in VAL), f"{inner}/test/1.JPEG")
    touch(tmp_path, "ILSVRC/ImageSets/CLS-LOC/val.txt")
    lines = f"{VAL[0][:-5]},n00000002 1 2\n{VAL[1][:-5]},n00000001 1 2\n"
    (tmp_path / "LOC_val_solution.csv").write_text(
        f"ImageId,PredictionString\n{lines}", encoding="utf-8"
    )
    found = find_splits(tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert found["train"].keys == ("n00000001/1.JPEG", "n00000002/1.JPEG")
    assert found["val"].keys == (f"n00000001/{VAL[1]}", f"n00000002/{VAL[0]}")
    assert found["val"].labels == (0, 1) and found["test"].labels == (-1,)
    assert [other.key for other in found.beside] == ["ILSVRC/ImageSets/CLS-LOC/val.txt"]


def test_files_of_many_images_by_their_names() -> None:
    for names in (["Train-0.tar", "TEST-0.tar"], ["train2017.tar", "test2017.tar"],
                  ["Training/0.tar", "Testing/0.tar"]):  # fmt: skip
        assert by_split(names, "src") == {"train": [names[0]], "test": [names[1]]}
    # Words that may mean something else make no splits alone.
    names = ["extra-0.tar", "dev-0.tar", "0.tar"]
    assert by_split(names, "src") == {"": names}
    with pytest.raises(ValueError, match=r"b\.tar in src names no split"):
        by_split(["train.tar", "b.tar"], "src")
