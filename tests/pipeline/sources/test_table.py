"""Tables of paths and labels: headers, delimiters, splits, and lines that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.pipeline.sources import Source, find_splits


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


def labelled(source: Source) -> dict[str, str | None]:
    names = [source.classes[label] if label >= 0 else None for label in source.labels]
    return dict(zip(source.keys, names, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "a/1.jpg,dog\nb.png,cat\n"),
        ("t.csv", "\ufefffile_name,label\r\n./a/1.jpg,dog\r\n\r\na/../b.png, cat\r\n"),
        ("t.csv", 'id;Class;Path\n7;"dog";a/1.jpg\n8;cat;b.png\n'),
        ("t.tsv", "target\timage\textra, with comma\ndog\ta/1.jpg\t\ncat\tb.png\t1\n"),
    ],
)
def test_headers_and_delimiters_are_sniffed(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert labelled(only(find_splits(tmp_path / name))) == {"a/1.jpg": "dog", "b.png": "cat"}
    assert len(only(find_splits(tmp_path, source="table"))) == 2


def test_a_table_of_gtsrb(tmp_path: Path) -> None:
    """German traffic signs: semicolons, and classes by number in a column of their own name."""
    (tmp_path / "t.csv").write_text(
        "Filename;Width;Roi.X1;ClassId\n00000.ppm;53;6;16\n00001.ppm;42;5;1\n", encoding="utf-8"
    )
    source = only(find_splits(tmp_path / "t.csv"))
    assert source.keys == ("00000.ppm", "00001.ppm") and source.labels == (16, 1)


def test_numbers_stay_and_labels_are_optional(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label\nb.jpg,3\na.jpg,0\nc.jpg,\nd.jpg,-1\n", encoding="utf-8")
    source = only(find_splits(table))
    assert source.labels == (0, 3, -1, -1) and source.classes == ("0", "1", "2", "3")
    table.write_text("x/b.jpg\nx/a b.jpg\n", encoding="utf-8")
    assert only(find_splits(table)).labels == (-1, -1)
    assert only(find_splits(table, labels="folders")).classes == ("x",)


def test_files_are_read_beside_the_table_or_where_paths_say(tmp_path: Path) -> None:
    (tmp_path / "far.jpg").write_bytes(b"far")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "near.jpg").write_bytes(b"near")
    table = tmp_path / "in" / "t.csv"
    table.write_text(f"near.jpg\n../far.jpg\n{tmp_path}/far.jpg\ngone.jpg\n", encoding="utf-8")
    source = only(find_splits(table))
    found = dict(zip(source.keys, range(4), strict=True))
    assert source.read(found["near.jpg"]) == b"near"
    assert source.read(found["../far.jpg"]) == source.read(found[f"{tmp_path}/far.jpg"[1:]])
    with pytest.raises(OSError, match="No such file"):
        source.read(found["gone.jpg"])


def test_splits_by_column_and_by_table(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text(
        "path,label,split\n1.jpg,b,train\n2.jpg,a,val\n1.jpg,a,val\n", encoding="utf-8"
    )
    found = find_splits(tmp_path / "all.csv")
    assert found["train"].labels == (1,) and found["val"].labels == (0, 0)
    (tmp_path / "all.csv").unlink()
    (tmp_path / "train.csv").write_text("1.jpg,b\n", encoding="utf-8")
    (tmp_path / "val.tsv").write_text("2.jpg\ta\n", encoding="utf-8")
    found = find_splits(tmp_path, source="table")
    assert list(found) == ["train", "val"] and found["train"].classes == ("a", "b")
    with pytest.raises(ValueError, match=r"no images in .*train\.csv .* choose source 'table'"):
        find_splits(tmp_path)
    (tmp_path / "val.csv").write_text("2.jpg,a\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds 3 tables \(train\.csv, val\.csv, val\.tsv\)"):
        find_splits(tmp_path, source="table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv is empty"),
        ("path,label\n", "has a header and nothing else"),
        ("a,b\n1.jpg,2\n", "starts with the columns 'a', 'b'; none is called path, file"),
        ("1.jpg,2,3\n", "starts with the columns '1.jpg', '2', '3'; none is called"),
        ("path,label\n1.jpg,2,3\n", r"line 2 of .*t\.csv has 3 cells and the first line 2"),
        ("path,label\n1.jpg\n", "line 2 of .* has 1 cells"),
        ("path,label\n,dog\n", "line 2 of .* has no path"),
        ('path,label\n1.jpg,"dog\n', "line 2 of .* cannot be parsed"),
        ("1.jpg,a\n2.jpg,a\n./1.jpg,b\n", "line 3 of .* names 1.jpg again, after line 1"),
        ("1.jpg,3\n2.jpg,dog\n", "the label of 2.jpg is 'dog' and that of 1.jpg is 3"),
        ("path,label,split\n1.jpg,a,../x\n", "line 2 of .* has the split '../x'"),
    ],
)
def test_tables_that_make_no_sense(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        find_splits(tmp_path / "t.csv")


def test_tables_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path\n\xe9.jpg\n")
    with pytest.raises(ValueError, match=r"t\.csv is no UTF-8 text"):
        find_splits(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath;label\r\nimages\\cat\\1.jpg;0\r\nimages\\dog\\2.jpg;1\r\n",
        'sep=;\r\n"path";"label"\r\n"images\\cat\\1.jpg";"0"\r\nimages\\dog\\2.jpg;1\r\n',
        "label|path\n0|.\\images\\cat\\1.jpg\n1|images/dog\\2.jpg\n",
        "path;label, as given\nimages\\cat\\1.jpg;x\nimages\\dog\\2.jpg;y\n",
        "path\tlabel\rimages/cat/1.jpg\t0\rimages/dog/2.jpg\t1\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_windows_and_of_spreadsheets(text: str, encoding: str, tmp_path: Path) -> None:
    for name in ("images/cat/1.jpg", "images/dog/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(name.encode())
    if encoding == "utf-16":
        text = text.removeprefix("\ufeff")  # the codec writes one
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    found = find_splits(tmp_path / "t.csv")
    source = only(found)
    assert source.keys == ("images/cat/1.jpg", "images/dog/2.jpg")
    assert source.labels == ((-1, -1) if "given" in text else (0, 1))
    assert [source.read(i).decode() for i in range(2)] == list(source.keys)
    assert any("none of its columns (label, as given)" in n for n in found.notes) == (
        "given" in text
    )


def test_backslashes_in_names_of_files_stay(tmp_path: Path) -> None:
    (tmp_path / "a\\b.jpg").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path\na\\b.jpg\nc\\d.jpg\n", encoding="utf-8")
    assert only(find_splits(tmp_path / "t.csv")).keys == ("a\\b.jpg", "c/d.jpg")
    for path in ("C:\\data\\1.jpg", "\\\\server\\share\\1.jpg"):
        (tmp_path / "t.csv").write_text(f"path\n{path}\n", encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"line 2 of .*t\.csv has the path .* a Windows machin"
        ):
            find_splits(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("column", "cells", "named"),
    [
        ("data set", ("train", "valid", "train"), "train, valid"),
        ("Usage", ("Training", "PublicTest", "PrivateTest"), "Training, PublicTest"),
        ("note", ("train", "test", "station"), ""),
        ("phase", ("train", "train", "train"), ""),
        ("split", ("train", "test", "train"), ""),
    ],
)
def test_a_column_of_splits_under_another_name_is_noted(
    column: str, cells: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    rows = "".join(f"{i}.jpg,{i % 2},{cell}\n" for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"path,label,{column}\n{rows}", encoding="utf-8")
    notes = find_splits(tmp_path / "t.csv").notes
    where = f"of {tmp_path / 't.csv'} names splits ({named}) and is not read: call it split"
    assert bool(notes) == bool(named) and all(where in note for note in notes)


def test_images_that_no_line_names_are_set_apart(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,0\ngone.jpg,1\n", encoding="utf-8")
    found = find_splits(tmp_path, source="table")
    assert only(found).keys == ("1.jpg", "gone.jpg") and found.there == 4
    assert {other.key: other.reason for other in only(found).others} == {
        "2.jpg": "not read: no line of the table names it",
        "notes.txt": "not read: no line of the table names it",
    }
