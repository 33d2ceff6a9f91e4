"""Compressed tars: known by their bytes, unpacked once, gone afterwards, refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.sources import tar_bytes
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.sources import find_splits, unpack
from coke.tools.datasets.ingest import ingest
from tests.support.random_layouts import image_bytes

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def plain_tar() -> bytes:
    return tar_bytes([("a/1.jpg", b"one"), ("a/1.cls", b"2"), ("b/2.jpg", b"two" * 1000)])


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.TGZ", "shard-000000"])
def test_a_compressed_tar_of_any_name(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKERS[kind](plain_tar()))
    (source,) = find_splits(tmp_path / name, scratch=tmp_path / "scratch").values()
    assert source.keys == ("a/1.jpg", "b/2.jpg") and source.labels == (2, -1)
    assert [source.read(i) for i in range(2)] == [b"one", b"two" * 1000]
    assert source.origin == str(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a tar compressed with {kind}; unpack it fir"):
        find_splits(tmp_path / name)


def test_several_streams_in_one_file(tmp_path: Path) -> None:
    whole = plain_tar()
    for kind, pack in PACKERS.items():
        (tmp_path / kind).write_bytes(pack(whole[:700]) + pack(whole[700:]))
        assert len(find_splits(tmp_path / kind, scratch=tmp_path / "scratch")[""]) == 2


def test_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow", reason="writes Zstandard")
    with pa.CompressedOutputStream(str(tmp_path / "x.tar.zst"), "zstd") as file:
        file.write(plain_tar())
    assert len(find_splits(tmp_path / "x.tar.zst", scratch=tmp_path / "scratch")[""]) == 2
    monkeypatch.setattr(unpack, "_zstd", lambda file: None)
    with pytest.raises(ValueError, match=r"zstd, which Python does not read here; .*: zstd -d "):
        find_splits(tmp_path / "x.tar.zst", scratch=tmp_path / "other")


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
def test_joined_streams_are_read_to_the_end(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    first, second = (compress(tar_bytes([(f"{i}.jpg", b"%d" % i)])) for i in range(2))
    for padding in (b"", b"\0" * 4, b"\0" * 4096):
        (tmp_path / "x.tar").write_bytes(first + padding + second + padding)
        source = find_splits(tmp_path / "x.tar", scratch=tmp_path / "scratch")[""]
        assert source.keys == ("0.jpg", "1.jpg") and source.read(1) == b"1"
    for rest in (b"something else", second[:-3], b"\0" + second[:2] + b"?" + second[3:]):
        (tmp_path / "x.tar").write_bytes(first + rest)
        with pytest.raises(ValueError, match=r"x\.tar is compressed with .* and damaged"):
            find_splits(tmp_path / "x.tar", scratch=tmp_path / "scratch")


def test_a_folder_of_plain_and_compressed_tars(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.tar").write_bytes(tar_bytes([("1.jpg", b"1")]))
    (src / "b.tar.gz").write_bytes(gzip.compress(tar_bytes([("1.jpg", b"2")])))
    source = find_splits(src, scratch=tmp_path / "scratch")[""]
    assert source.keys == ("a/1.jpg", "b/1.jpg") and source.read(1) == b"2"


def test_what_cannot_be_unpacked(tmp_path: Path) -> None:
    whole = gzip.compress(plain_tar())
    for name, data, message in (
        ("cut.tar", whole[: len(whole) // 2], "is compressed with gzip and damaged"),
        ("text.tgz", gzip.compress(b"text" * 200), "and what it holds is no tar; unpack it first"),
        ("x.tar.lz4", b"\x04\x22\x4d\x18" + bytes(50), "lz4, which Python does not read here"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} .*{message}"):
            find_splits(tmp_path / name, scratch=tmp_path / "scratch")
    (tmp_path / "file").touch()
    (tmp_path / "x.tar").write_bytes(whole)
    with pytest.raises(ValueError, match="cannot be unpacked into .*: Not a directory; make room"):
        find_splits(tmp_path / "x.tar", scratch=tmp_path / "file" / "scratch")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_copy_changes_when_the_file_does_and_no_sooner(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(plain_tar()))
    stamps = set()
    for scratch in ("a", "b"):  # of a run that is interrupted, and the next one
        stamps.add(find_splits(path, scratch=tmp_path / scratch)[""].stamp(0))
    assert len(stamps) == 1
    os.utime(path, ns=(1, 1))
    assert find_splits(path, scratch=tmp_path / "c")[""].stamp(0) not in stamps


def test_ingest_leaves_no_copy(tmp_path: Path) -> None:
    rng = random.Random(5)
    files = [(f"{i}.jpg", image_bytes(rng)) for i in range(3)]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.tar").write_bytes(tar_bytes(files))
    (tmp_path / "src" / "y").write_bytes(gzip.compress(tar_bytes(files)))
    for name in ("x.tar", "y"):
        ingest(tmp_path / "src" / name, tmp_path / f"out-{name}", workers=1,
               console=Console(file=io.StringIO()))  # fmt: skip
    plain, packed = (ImageIndex(tmp_path / name) for name in ("out-x.tar", "out-y"))
    assert plain.identity == packed.identity
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-x.tar", "out-y", "src"]
