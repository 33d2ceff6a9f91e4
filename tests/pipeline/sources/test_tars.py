"""Images inside tars: the official ImageNet files and WebDataset shards, whole and damaged."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sources import (
    Picture,
    as_validation,
    synthetic,
    tar_bytes,
    wnids,
    write_class_tars,
    write_shards_cls,
    write_train_tar,
    write_val_tar,
)
from coke.pipeline.sources import Source, find_splits, storage
from coke.pipeline.sources.tar_members import OpenTar, Span

SYNSETS = "imagenet_2012_validation_synset_labels.txt"


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


def shard(path: Path, members: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [(n, d if isinstance(d, bytes) else d.encode()) for n, d in members.items()]
    path.write_bytes(tar_bytes(files))
    return path


# --- listing ---


class CountingFile(io.FileIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_listing_reads_headers_not_images(tmp_path: Path) -> None:
    images = [(f"n01440764_{i}.JPEG", bytes(100_000)) for i in range(20)]
    outer = tmp_path / "outer.tar"
    outer.write_bytes(tar_bytes([(f"n0144076{i}.tar", tar_bytes(images)) for i in range(3)]))
    with CountingFile(outer) as file:
        tars = list(OpenTar(file, Span(str(outer))))
        inner = [list(OpenTar(file, Span("", tar.offset, tar.size))) for tar in tars]
        # Of 6 MB: one small read for each of 63 headers and 4 ends, and the zeros behind the ends.
        assert file.count < 70 * 1100 + 4 * 10_240
        assert [len(members) for members in inner] == [20] * 3
        file.seek(inner[2][7].offset)
        assert inner[2][7].size == 100_000 and not any(file.read(100_000))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_tar_dialect(form: int, tmp_path: Path) -> None:
    names = [f"./{'d' * 90}/{'é' * 40}{i}.jpg" for i in range(3)]
    with tarfile.open(tmp_path / "a.tar", "w", format=form, encoding="utf-8") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(name[-6:-1].encode()[:5]))
    source = only(find_splits(tmp_path))
    assert source.keys == tuple(name.removeprefix("./") for name in names)
    assert source.read(1) == names[1][-6:-1].encode()[:5]


def test_a_tar_cut_or_damaged_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = tar_bytes([(f"{i}.jpg", bytes([i + 1]) * 700) for i in range(4)])
    body = 4 * (512 + 1024)
    path.write_bytes(whole[:body])  # without the end marker all images are there
    assert len(only(find_splits(path))) == 4
    for cut in range(1, body, 97):
        if cut % 1536 == 0:
            continue  # between two members nothing shows that there were more
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError, match=r"a\.tar is truncated or damaged: .*download it again"
        ):
            find_splits(path)
    for header in range(4):
        damaged = bytearray(whole)
        damaged[header * 1536 + 130] ^= 0x15
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.tar is truncated or damaged"):
            find_splits(path)


def test_links_in_a_tar_are_not_lost_in_silence(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "2.jpg").hardlink_to(tmp_path / "1.jpg")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        tar.add(tmp_path / "1.jpg", "1.jpg")
        tar.add(tmp_path / "2.jpg", "2.jpg")
    with pytest.raises(ValueError, match=r"holds 2\.jpg, a link to 1\.jpg; .*--hard-deref"):
        find_splits(tmp_path / "tars")


def test_a_pipe_or_sparse_file_in_a_tar_is_named_with_its_own_remedy(tmp_path: Path) -> None:
    member = tarfile.TarInfo("f.jpg")
    member.type = tarfile.FIFOTYPE
    with tarfile.open(tmp_path / "pipe.tar", "w") as tar:
        tar.addfile(member)
    with pytest.raises(ValueError, match=r"holds f\.jpg, which is no regular file; .* without it"):
        find_splits(tmp_path / "pipe.tar")
    member.type = tarfile.GNUTYPE_SPARSE
    with tarfile.open(tmp_path / "sparse.tar", "w") as tar:
        tar.addfile(member)
    with pytest.raises(ValueError, match=r"holds f\.jpg as a sparse file; .* without --sparse"):
        find_splits(tmp_path / "sparse.tar")


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" + bytes(600))
    with pytest.raises(
        ValueError, match=r"a\.tar is no tar, but a Git LFS pointer: run git lfs pu"
    ):
        find_splits(tmp_path / "a.tar")


def test_names_that_lead_upwards_are_no_hidden_files(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = dict.fromkeys(("../a/1.jpg", "b/./2.jpg", "../.c/3.jpg"), b"")
    found = only(find_splits(shard(tmp_path / "a.tar", members)))
    assert found.keys == ("../a/1.jpg", "b/./2.jpg")
    assert [other.key for other in found.others] == ["../.c/3.jpg"]


# --- ImageNet ---


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    write_train_tar(tmp_path, synthetic(12))
    write_val_tar(tmp_path, as_validation(synthetic(8, classes=4)))
    (tmp_path / "ILSVRC2012_img_test_v10102019.tar").write_bytes(
        tar_bytes([(f"test/ILSVRC2012_test_{i:08d}.JPEG", b"%d" % i) for i in range(3)])
    )
    return tmp_path


def test_the_official_tars_together(imagenet: Path) -> None:
    found = find_splits(imagenet)
    assert list(found) == ["train", "val", "test"]
    classes = tuple(f"n{1440764 + i:08d}" for i in range(4))  # the fourth is in val alone
    assert {source.classes for source in found.values()} == {classes}
    for split in ("train", "val"):
        source = found[split]
        assert [classes[label] for label in source.labels] == [k[:9] for k in source.keys]
    assert found["train"].keys[0] == "n01440764/n01440764_0.JPEG"
    assert found["test"].keys[2] == "ILSVRC2012_test_00000002.JPEG"
    assert found["test"].read(2) == b"2" and found["test"].labels == (-1,) * 3


def test_one_official_tar_under_any_name(imagenet: Path) -> None:
    (imagenet / "ILSVRC2012_img_train.tar").rename(imagenet / "t.tar")
    (imagenet / "ILSVRC2012_img_val.tar").rename(imagenet / "v.tar")
    assert len(only(find_splits(imagenet / "t.tar"))) == 12
    assert len(only(find_splits(imagenet / "v.tar"))) == 8


def test_every_accepted_form_of_the_validation_labels(imagenet: Path) -> None:
    tar = imagenet / "ILSVRC2012_img_val.tar"
    expected = only(find_splits(tar))
    truth = (imagenet / SYNSETS).read_text(encoding="utf-8").split()
    (imagenet / SYNSETS).unlink()
    with pytest.raises(ValueError, match=r"img_val\.tar have no labels beside them; add imagenet_"):
        find_splits(tar)
    assert only(find_splits(tar, labels="none")).keys[0] == "ILSVRC2012_val_00000001.JPEG"

    rows = [f"ILSVRC2012_val_{i:08d},{wnid} 1 2 3 4 \n" for i, wnid in enumerate(truth, 1)]
    (imagenet / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n" + "".join(rows), encoding="utf-8"
    )
    assert only(find_splits(tar)).keys == expected.keys
    (imagenet / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n" + "".join(rows[1:]), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"solution\.csv says nothing about .*00000001\.JPEG"):
        find_splits(tar)
    (imagenet / "LOC_val_solution.csv").unlink()

    scipy_io = pytest.importorskip("scipy.io", reason="meta.mat needs scipy")
    known = [*sorted(set(truth), reverse=True), "n99999999"]  # the devkit's order is its own
    synsets = np.array(
        [(i, wnid, 0) for i, wnid in enumerate(known, 1)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)],
    )
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": synsets})
    numbers = "".join(f"{known.index(wnid) + 1}\n" for wnid in truth).encode()
    data = imagenet / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / "meta.mat").write_bytes(meta.getvalue())
    (data / "ILSVRC2012_validation_ground_truth.txt").write_bytes(numbers)
    assert only(find_splits(tar)).keys == expected.keys
    archive = imagenet / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(data.parent, "ILSVRC2012_devkit_t12")
    for path in data.iterdir():
        path.unlink()
    assert only(find_splits(tar)).labels == expected.labels
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"devkit_t12\.tar\.gz is damaged or holds no"):
        find_splits(tar)


def test_validation_labels_that_do_not_fit(imagenet: Path) -> None:
    lines = (imagenet / SYNSETS).read_text(encoding="utf-8").splitlines()
    for text, message in {
        "\n".join(lines[:-1]): r"has 7 lines, none of them for ILSVRC2012_val_00000008\.JPEG",
        "\n".join(["65", *lines[1:]]): "says '65' where a wnid",
    }.items():
        (imagenet / SYNSETS).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            find_splits(imagenet)


def test_a_train_tar_that_is_none(tmp_path: Path) -> None:
    shard(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"", "cat.jpg": b""})
    with pytest.raises(ValueError, match=r"not ImageNet's train tar: cat\.jpg should be the tar"):
        find_splits(tmp_path)
    shard(tmp_path / "ILSVRC2012_img_train.tar", {})
    for src in (tmp_path, tmp_path / "ILSVRC2012_img_train.tar"):
        with pytest.raises(ValueError, match=r"no images in the ImageNet tars of .*download"):
            find_splits(src)
    shard(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"x" * 2000})
    with pytest.raises(
        ValueError, match=r"the tar at byte 512 of .*train\.tar is truncated or damaged"
    ):
        find_splits(tmp_path)


# --- WebDataset ---


def test_records_and_their_labels(tmp_path: Path) -> None:
    shard(
        tmp_path / "a.tar",
        {"x/1.jpg": b"1", "x/1.cls": "3\n", "x/1.txt": "a cat", "x/._1.jpg": b"of macOS",
           "2.seg.png": b"mask", "2.png": b"2", "2.cls": "0",
           "5.1.jpg": b"", "5.2.jpg": b"", "5.cls": "1",
           "3.json": '{"caption": "no label"}', "3.webp": b"3",
           "4.txt": "no image"},
    )  # fmt: skip
    source = only(find_splits(tmp_path / "a.tar"))
    assert dict(zip(source.keys, source.labels, strict=True)) == {
        "2.png": 0, "3.webp": -1, "5.1.jpg": 1, "5.2.jpg": 1, "x/1.jpg": 3,
    }  # fmt: skip
    assert [source.read(i) for i in range(5)] == [b"2", b"3", b"", b"", b"1"]
    assert source.classes == ("0", "1", "2", "3")
    # *.json and *.txt are the files beside images, of which no label is read.
    assert {other.key: other.files for other in source.others} == {
        "x/._1.jpg": 1, "2.seg.png": 1, "4.txt": 1, "*.json": 1, "*.txt": 1,
    }  # fmt: skip
    assert {other.key: other.files for other in source.label_files} == {"*.cls": 3}


def test_class_names_in_shards_are_sorted_over_splits(tmp_path: Path) -> None:
    shard(tmp_path / "in-train-000.tar", {"1.jpg": b"", "1.cls": "dog", "2.jpg": b"", "2.cls": ""})
    shard(tmp_path / "in-val-000.tar", {"1.jpg": b"", "1.json": '{"label": "cat"}'})
    found = find_splits(tmp_path)
    assert list(found) == ["train", "val"]
    assert found["train"].labels == (1, -1) and found["val"].labels == (0,)
    assert found["val"].classes == ("cat", "dog")
    (tmp_path / "in-val-000.tar").rename(tmp_path / "more.tar")
    with pytest.raises(ValueError, match=r"more\.tar in .* names no split .* and other files do"):
        find_splits(tmp_path)


def test_names_that_repeat_across_shards_begin_with_the_shard(tmp_path: Path) -> None:
    for name in ("s-0.tar", "s-1.tar"):
        shard(tmp_path / name, {"a/1.jpg": name, "b/2.jpg": name})
    source = only(find_splits(tmp_path, labels="folders"))
    assert source.keys == ("s-0/a/1.jpg", "s-0/b/2.jpg", "s-1/a/1.jpg", "s-1/b/2.jpg")
    assert source.labels == (0, 1, 0, 1) and source.classes == ("a", "b")
    assert source.read(2) == b"s-1.tar"
    with tarfile.open(tmp_path / "s-1.tar", "a") as tar:  # as `tar -r` of a changed file does
        tar.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(ValueError, match=r"have the key 's-1/a/1\.jpg': .*offset 512 and .*offset"):
        find_splits(tmp_path)


def test_labels_in_shards_that_make_no_sense(tmp_path: Path) -> None:
    for member, content, message in (
        ("1.cls", "cat", r"label of 1\.jpg is 'cat' and that of 2\.jpg is 7"),
        ("1.cls", b"\xff1", r"1\.cls in .*a\.tar holds no text"),
        ("1.cls", "-5", r"a label in .*a\.tar is -5; labels count classes from 0"),
        ("1.cls", "99999999999", r"a label in .*a\.tar is 99999999999"),
        ("1.json", "{", r"1\.json in .*a\.tar is no JSON"),
        ("1.json", '{"label": [1]}', r"1\.json in .*a\.tar has the label \[1\]"),
    ):
        files: dict[str, bytes | str] = {"1.jpg": b"", member: content, "2.jpg": b"", "2.cls": "7"}
        shard(tmp_path / "a.tar", files)
        with pytest.raises(ValueError, match=message):
            find_splits(tmp_path)
        assert len(only(find_splits(tmp_path, labels="none"))) == 2


def test_tars_without_images_or_of_several_kinds(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"1.txt": "x"})
    with pytest.raises(ValueError, match=r"no images in 1 tars of .*first: a\.tar"):
        find_splits(tmp_path)
    (tmp_path / "b.parquet").touch()
    with pytest.raises(
        ValueError, match=r"1 \.tar and 1 \.parquet files; choose a source: 'wds' or"
    ):
        find_splits(tmp_path)
    (tmp_path / "n01440764.tar").touch()
    (tmp_path / "a.tar").unlink()
    (tmp_path / "1.jpg").touch()
    with pytest.raises(ValueError, match="1 image, 1 .* source: 'folders' or 'imagenet' or 'parq"):
        find_splits(tmp_path)
    assert only(find_splits(tmp_path, source="folders")).keys == ("1.jpg",)
    (tmp_path / "c.zip").touch()
    with pytest.raises(
        ValueError, match=r"c\.zip is an archive that coke does not read; unpack it"
    ):
        find_splits(tmp_path / "c.zip")


def test_a_tar_that_shrinks_after_listing_is_a_read_error(tmp_path: Path) -> None:
    source = only(find_splits(shard(tmp_path / "a.tar", {"1.jpg": b"x" * 100})))
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(OSError, match="the file ends before byte 612"):
        source.read(0)


def test_reading_opens_local_files_without_fsspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "filesystem_of", None)
    pictures: list[Picture] = synthetic(5)
    for write in (write_class_tars, write_shards_cls):
        (tmp_path / write.__name__).mkdir()
        source = only(find_splits(write(tmp_path / write.__name__, pictures)))
        assert source.read(4) == pictures[4].data and len(wnids(pictures)) == 3


# --- joined tars, labels apart ---


def test_joined_tars_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [tar_bytes([(f"{i}.jpg", b"%d" % i), (f"{i}.cls", b"%d" % i)]) for i in range(3)]
    (tmp_path / "a.tar").write_bytes(parts[0] + parts[1] + bytes(3_000_320) + parts[2])
    source = only(find_splits(tmp_path / "a.tar"))
    assert source.keys == ("0.jpg", "1.jpg", "2.jpg") and source.labels == (0, 1, 2)
    assert [source.read(i) for i in range(3)] == [b"0", b"1", b"2"]
    for tail in (b"rubbish", parts[1][100:], b"\0" * 10 + parts[1]):
        (tmp_path / "a.tar").write_bytes(parts[0] + tail)
        with pytest.raises(
            ValueError, match=r"a\.tar is truncated or damaged: no header where one should"
        ):
            find_splits(tmp_path / "a.tar")


@pytest.mark.parametrize("order", ["labels last", "labels first", "mixed"])
def test_labels_far_from_their_images(order: str, tmp_path: Path) -> None:
    images: dict[str, bytes | str] = {f"d/{i}.jpg": b"x" for i in range(6)}
    labels: dict[str, bytes | str] = {f"d/{i}.cls": str(i % 3) for i in range(5)}
    members = {**labels, **images} if order == "labels first" else {**images, **labels}
    if order == "mixed":
        members = dict(sorted(members.items(), key=lambda item: item[0][::-1]))
    source = only(find_splits(shard(tmp_path / "a.tar", {**members, "d/9.cls": "1"})))
    assert source.labels == (0, 1, 2, 0, 1, -1)
    assert {other.key: other.files for other in source.label_files} == {"*.cls": 5}
    assert [other.key for other in source.others] == ["d/9.cls"]


def test_images_of_one_record_have_their_own_labels(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "x.1.jpg": b"", "x.1.cls": "1", "x.2.jpg": b"", "x.2.cls": "2",
    }  # fmt: skip
    assert only(find_splits(shard(tmp_path / "a.tar", members))).labels == (1, 2)
    with pytest.raises(ValueError, match=r"x\.a\.cls, x\.b\.cls in .* of one record and differ"):
        find_splits(shard(tmp_path / "b.tar", {"x.jpg": b"", "x.a.cls": "1", "x.b.cls": "2"}))
    with pytest.raises(ValueError, match=r"x\.a\.cls, x\.b\.cls in .* of one record and differ"):
        find_splits(shard(tmp_path / "c.tar", {"x.jpg": b"", "y.jpg": b"", "x.a.cls": "1",
                                               "x.b.cls": "2"}))  # fmt: skip


def test_labels_as_windows_writes_them(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "0.JPG": b"", "0.CLS": b"\xef\xbb\xbf10\r\n",  # a byte order mark
        "1.JPG": b"", "1.CLS": "9".encode("utf-16"),
        "2.JPG": b"", "2.JSON": b'\xef\xbb\xbf{"label": 0}',
        "3.jpg": b"", "3.Cls": b"1e1",
    }  # fmt: skip
    source = only(find_splits(shard(tmp_path / "a.tar", members)))
    assert source.labels == (10, 9, 0, 10)
    assert sum(other.files for other in source.label_files) == 4


def test_notes_about_what_is_not_read_from_a_tar(tmp_path: Path) -> None:
    apart = find_splits(shard(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": "0", "2.cls": "0"}))
    assert apart.notes == [
        f"1 labels in {tmp_path / 'a.tar'} have no image of their name in the same tar."
    ]
    classes = shard(tmp_path / "b.tar", {"cat/1.jpg": b"", "dog/1.jpg": b""})
    assert find_splits(classes).notes == [
        f"{classes} holds no labels. If its folders are classes, add --labels folders."
    ]
    assert find_splits(classes, labels="folders").notes == []
    texts = shard(tmp_path / "d.tar", {"1.jpg": b"", "1.txt": b"3", "1.label": b"3"})
    (note,) = find_splits(texts).notes
    assert note.startswith(
        f"No labels were read from {texts}, nor from the .label, .txt beside its"
    )
    assert find_splits(texts, labels="none").notes == []
    splits = shard(tmp_path / "c.tar", {"x/train/cat/1.jpg": b"", "x/test/cat/1.jpg": b""})
    (note,) = find_splits(splits).notes
    assert "holds folders of splits (train, test), which are ingested as one set without" in note
