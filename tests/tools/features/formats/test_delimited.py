"""Tables of text: which row is a header, which columns name rows, and what is refused by name."""

from __future__ import annotations

import io
import locale
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coke.tools.features.feature_files import open_features
from coke.tools.features.formats.delimited import DelimitedFile


def table(folder: Path, text: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, key: str | None = None, name: str = "x.csv") -> Any:
    """Columns, rows, ids and keys of a table; None where it has none."""
    file = DelimitedFile(table(folder, text, name), key)
    rows = np.concatenate(list(file.batches(2))).tolist()
    assert (file.rows, file.width) == (len(rows), len(rows[0]))
    ids = np.concatenate(list(file.ids(2))).tolist() if file.has_ids else None
    keys = list(chain.from_iterable(file.keys(2))) if file.has_keys else None
    return file.columns, rows, ids, keys


ROWS = [[1.5, 2.0], [-3.0, 4e-3], [5.0, 6.0]]
DATA = "1.5,2\n-3,4e-3\n5,6\n"


@pytest.mark.parametrize(
    ("text", "columns", "ids", "keys"),
    [
        ("lat,lon\n" + DATA, ("lat", "lon"), None, None),
        (DATA, ("0", "1"), None, None),
        (DATA.rstrip(), ("0", "1"), None, None),
        ("0,1\n" + DATA, ("0", "1"), None, None),
        ("\ufefflat,lon\r\n" + DATA.replace("\n", "\r\n"), ("lat", "lon"), None, None),
        ("# lat,lon\n" + DATA, ("lat", "lon"), None, None),
        ('"lat, north", lon \n' + DATA.replace("2", '"2" '), ("lat, north", "lon"), None, None),
        ("lat,lon\n\n1.5,2\n\n-3,4e-3\n5,6\n\n", ("lat", "lon"), None, None),
        (",lat,lon\n0,1.5,2\n1,-3,4e-3\n2,5,6\n", ("lat", "lon"), [0, 1, 2], None),
        (",0,1\n0,1.5,2\n1,-3,4e-3\n2,5,6\n", ("0", "1"), [0, 1, 2], None),
        (",lat,lon\na,1.5,2\nb,-3,4e-3\nc,5,6\n", ("lat", "lon"), None, ["a", "b", "c"]),
        ("lat,ID,lon\n1.5,7,2\n-3,-8,4e-3\n5,0,6\n", ("lat", "lon"), [7, -8, 0], None),
        ("id,lat,lon\n007,1.5,2\n8,-3,4e-3\n9,5,6\n", ("lat", "lon"), None, ["007", "8", "9"]),
        (
            'key,id,lat,lon\n"a,b",3,1.5,2\n"c\nd",2,-3,4e-3\né,1,5,6\n',
            ("lat", "lon"),
            [3, 2, 1],
            ["a,b", "c\nd", "é"],
        ),
        (
            "Unnamed: 0,key,lat,lon\n0,a,1.5,2\n1,b,-3,4e-3\n2,c,5,6\n",
            ("lat", "lon"),
            None,
            ["a", "b", "c"],
        ),
    ],
)
def test_a_table_is_what_its_text_says(
    text: str, columns: Any, ids: Any, keys: Any, tmp_path: Path
) -> None:
    assert read(tmp_path, text) == (columns, ROWS, ids, keys)


def test_tabs_and_semicolons_separate(tmp_path: Path) -> None:
    text = "lat,lon\n" + DATA
    expected = (("lat", "lon"), ROWS, None, None)
    assert read(tmp_path, text.replace(",", "\t"), name="x.tsv") == expected
    assert read(tmp_path, text.replace(",", "\t"), name="X.TSV") == expected
    assert read(tmp_path, text.replace(",", ";")) == expected
    found = read(tmp_path, "key\tx\na, b\t1\n'c\t2\n", name="x.tsv")
    assert found == (("x",), [[1.0], [2.0]], None, ["a, b", "'c"])


def test_the_key_names_the_rows_or_chooses_dimensions(tmp_path: Path) -> None:
    text = "file,label,f2,f10,f1\na.png,3,1,2,4\nb.png,5,6,7,8\n"
    assert read(tmp_path, text, "file") == (
        ("label", "f2", "f10", "f1"), [[3, 1, 2, 4], [5, 6, 7, 8]], None, ["a.png", "b.png"]
    )  # fmt: skip
    assert read(tmp_path, text, "f") == (("f1", "f2", "f10"), [[4, 1, 2], [8, 6, 7]], None, None)
    assert read(tmp_path, "a.png,1,2\nb.png,3,4\n", "0") == (
        ("1", "2"), [[1, 2], [3, 4]], None, ["a.png", "b.png"]
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"no column 'g', nor .*its columns are file, label, f2"):
        read(tmp_path, text, "g")


def test_one_column(tmp_path: Path) -> None:
    assert read(tmp_path, "0\n1\n2\n") == (("0",), [[0], [1], [2]], None, None)
    assert read(tmp_path, ",0\n0,5\n1,7\n") == (("0",), [[5], [7]], [0, 1], None)
    for text in ('x\n1\n""\n3\n', "x\n1\n\n3\n"):
        with pytest.raises(
            ValueError, match=r"no value \(NaN\) in row 1|blank line 3 before other rows"
        ):
            read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows; leave it out"),
        ("lat,lon\n", "has a header and no rows; leave it out"),
        ("0,1\n4,5\n", "begins with 0,1, which may be a header or a row; give the columns"),
        ("x,city\n1,Bern\n", "has text in column 'city' ('Bern'): leave such columns out, or give"),
        ("a.png,1,2\nb.png,3,4\n", "has no header and has text in column '0' ('a.png'): leave"),
        ("x,y\n1,2\n3\n", "has 1 cells in line 3, 2 in the first: all rows need the same"),
        ("x,y\n1,2\n3,NA\n", "has 'NA', which is no number, in row 1 (line 3), column 'y'; leave"),
        ("x,y\n1,2\n3,\n", "has no value (NaN) in row 1 (line 3), column 'y'; leave the row out"),
        ("x;y\n1;2\n1,5;2\n", "'1,5', which is no number, in row 1 (line 3), column 'x'; write nu"),
        ("x,y\n1,2\n1_0,2\n", "has '1_0', which is no number, in row 1"),
        ("x,y\n1,2\n١,2\n", "which is no number, in row 1"),
        ("x,x\n1,2\n", "has two columns named 'x'; rename one"),
        ("key,x\na,1\n,2\n", "has no value in row 1 (line 3), column 'key', which names the rows"),
        ("id,key\n1,a\n", "has no columns of features; its columns are id, key"),
        ("x,y\n1,2\n".encode("utf-16"), "is no UTF-8 text (byte 0xff); save it as UTF-8"),
        (b"x,stra\xdfe\n1,2\n", "is no UTF-8 text (byte 0xdf)"),
        ("key,x\n" + '"' + "a" * 200_000, "is no table of text (field larger than field limit"),
    ],
)
def test_what_is_no_table_of_numbers_is_named(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read(tmp_path, text)
    assert str(tmp_path / "x.csv") in str(error.value) and "\n" not in str(error.value)


def test_values_that_are_not_finite_are_named_by_row_and_column(tmp_path: Path) -> None:
    for value in ("nan", "inf", "-Infinity", "1e400"):
        path = table(tmp_path, f"lat,lon\n1,2\n3,4\n5,{value}\n")
        with pytest.raises(ValueError, match=r"x\.csv has -?(nan|inf) in row 2, column 'lon'; onl"):
            list(open_features(path).batches(directed=False))


def test_a_locale_with_a_decimal_comma_changes_nothing(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_ALL, name)
            except locale.Error:
                continue
            assert read(tmp_path, DATA)[1] == ROWS
    finally:
        locale.setlocale(locale.LC_ALL, before)


def test_what_pandas_and_numpy_write_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3))
    text = io.StringIO()
    np.savetxt(text, x, delimiter=",", header="a,b,c", fmt="%.17g")
    assert read(tmp_path, text.getvalue())[:2] == (("a", "b", "c"), x.tolist())
    pd = pytest.importorskip("pandas", reason="writes tables")
    for frame, ids, keys in (
        (pd.DataFrame(x), [0, 1, 2, 3, 4], None),
        (pd.DataFrame(x, columns=list("abc"), index=list("vwxyz")), None, list("vwxyz")),
        (pd.DataFrame(x, columns=list("abc"), index=pd.Index(list("vwxyz"), name="key")), None,
         list("vwxyz")),
    ):  # fmt: skip
        assert read(tmp_path, frame.to_csv())[1:] == (x.tolist(), ids, keys)
    for header in (True, False):
        text = pd.DataFrame(x).to_csv(index=False, header=header)
        assert read(tmp_path, text)[1] == x.tolist()


def test_files_of_a_folder_have_the_same_columns_in_the_same_order(tmp_path: Path) -> None:
    table(tmp_path, "a,b,c,d\n1,2,3,4\n", "1.csv")
    table(tmp_path, "a,c,b,d\n1,2,3,4\n", "2.csv")
    with pytest.raises(ValueError, match=r"2\.csv has its columns in another order than .*1\.csv"):
        open_features(tmp_path)
    table(tmp_path, "a,b,c,d\n5,6,7,8\n", "2.csv")
    found = np.concatenate(list(open_features(tmp_path).batches(directed=True)))
    assert found.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_table_beside_arrays_is_not_features(tmp_path: Path) -> None:
    np.save(tmp_path / "part-0.npy", np.ones((2, 3)))
    table(tmp_path, "file,label\na.png,cat\n", "labels.csv")
    assert open_features(tmp_path).rows == 2
