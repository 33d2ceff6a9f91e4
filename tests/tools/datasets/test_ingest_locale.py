"""Keys are the bytes of names, read as UTF-8: the same data set under every locale."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coke.pipeline.dataset.index import ImageIndex
from tests.support.random_layouts import image_bytes

pytestmark = pytest.mark.slow  # processes of their own: a locale is chosen when Python starts

UTF8 = {"PYTHONUTF8": "1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
KEYS = ["a/é.jpg", "z/ü.jpg", "Ā/x.jpg", "日本/1.jpg"]  # in the order of their UTF-8 bytes


def run(locale: dict[str, str], *arguments: str | Path | int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "coke", *map(str, arguments)],
        env={**os.environ, **locale},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(errors="replace")


def latin1(folder: Path) -> dict[str, str]:
    """A locale whose encoding is not UTF-8, made where the machine can make one."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE.ISO-8859-1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode > 1:  # 1 is a warning
        pytest.skip("this machine has no definitions of locales")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    for key in [*map(os.fsencode, KEYS), b"a/\xff.jpg", b"\xfe/1.jpg"]:
        path = os.path.join(os.fsencode(tmp_path), b"src", key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(image_bytes(random.Random(3)))
    return tmp_path / "src"


@pytest.mark.parametrize("name", ["ascii", "latin1"])
def test_the_same_bytes_under_every_locale(name: str, src: Path, tmp_path: Path) -> None:
    locale = ASCII if name == "ascii" else latin1(tmp_path)
    run(UTF8, "ingest", src, tmp_path / "utf8", "--workers", 1)
    run(locale, "ingest", src, tmp_path / name, "--workers", 2)
    files = sorted(path.name for path in (tmp_path / "utf8").iterdir())
    assert files == sorted(path.name for path in (tmp_path / name).iterdir())
    for file in files:
        assert (tmp_path / "utf8" / file).read_bytes() == (tmp_path / name / file).read_bytes()
    index = ImageIndex(tmp_path / name)
    assert index.keys == KEYS and index.manifest.classes == ["a", "z", "Ā", "日本"]
    rejected = (tmp_path / name / "rejected.tsv").read_text(encoding="utf-8")
    assert rejected == (
        "key\treason\n"
        "a/\\udcff.jpg\tthe file name is not valid UTF-8: rename it\n"
        "\\udcfe/1.jpg\tthe file name is not valid UTF-8: rename it\n"
    )


def test_tables_and_notes_name_files_under_every_locale(src: Path, tmp_path: Path) -> None:
    (tmp_path / "src" / "t.csv").write_text(
        "".join(f"{key},{key[0]}\n" for key in KEYS), encoding="utf-8"
    )
    run(ASCII, "ingest", src / "t.csv", tmp_path / "out", "--workers", 1)
    assert ImageIndex(tmp_path / "out").keys == KEYS
    for split in ("train", "test"):
        shutil.copytree(src / "a", tmp_path / "two" / split / "a")
    shutil.copytree(src / "日本", tmp_path / "two" / "日本")
    told = run(ASCII, "ingest", tmp_path / "two", tmp_path / "splits", "--workers", 1)
    assert "note: 1 image in \\u65e5\\u672c/ is in no split (train, test)" in told
