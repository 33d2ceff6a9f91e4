"""Ingest end to end: the same ids whatever the settings, all or nothing on disk."""

from __future__ import annotations

import gzip
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from rich.console import Console

import coke
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.tools.datasets import ingest as ingest_module
from coke.tools.datasets import ingest_containers, ingest_first_pass
from coke.tools.datasets.ingest import ingest
from tests.support.patience import PATIENCE_S

REPOSITORY = Path(coke.__file__).parents[1]


def make_images(root: Path, count: int, classes: str = "ab") -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / classes[i % len(classes)] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16 + i % 5, 24, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return make_images(tmp_path / "src", 23)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def rejections(folder: Path) -> dict[str, str]:
    header, *lines = (folder / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "key\treason"
    return dict(line.split("\t") for line in lines)


@pytest.mark.slow
def test_ids_do_not_depend_on_workers_or_shard_size(src: Path, tmp_path: Path) -> None:
    (src / "a" / "broken.jpg").write_bytes(b"text")
    for workers in (1, 4):
        for size in (5, 100):
            ingest(src, tmp_path / f"{workers}-{size}", workers=workers, shard_size=size)
    indexes = {p: ImageIndex(tmp_path / p) for p in ("1-5", "1-100", "4-5", "4-100")}
    keys = indexes["1-5"].keys
    assert keys == sorted(keys, key=str.encode) and len(keys) == 23
    for index in indexes.values():
        assert index.keys == keys and index.identity == indexes["1-5"].identity
        assert index.labels.tolist() == [int(key.startswith("b/")) for key in keys]
        assert index.manifest.classes == ["a", "b"] and index.manifest.rejected == 1
        stored = RecordReader(index).read(np.arange(23))
        assert [s.tobytes() for s in stored] == [(src / key).read_bytes() for key in keys]
    assert contents(tmp_path / "1-5") == contents(tmp_path / "4-5")
    assert contents(tmp_path / "1-100") == contents(tmp_path / "4-100")
    assert [len(i.manifest.containers) for i in indexes.values()] == [5, 1, 5, 1]


def test_every_reader_gives_every_id_once(src: Path, tmp_path: Path) -> None:
    ingest(src, tmp_path / "out", shard_size=10, workers=1)
    tars = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    samples = webdataset.WebDataset(tars, shardshuffle=False)
    assert [int(s["id"]) for s in samples] == list(range(23))

    dali = pytest.importorskip("nvidia.dali")
    fn = dali.fn

    pipe = dali.Pipeline(batch_size=23, num_threads=1, device_id=None)
    with pipe:
        indexes = [str(Path(tar).with_suffix(".idx")) for tar in tars]
        jpg, ids = fn.readers.webdataset(paths=tars, index_paths=indexes, ext=["jpg", "id"])
        pipe.set_outputs(fn.decoders.image(jpg, device="cpu"), fn.pad(ids))
    pipe.build()
    images, ids = pipe.run()
    found = [int(bytes(ids.at(i)).rstrip(b"\0")) for i in range(23)]
    assert sorted(found) == list(range(23))
    rows = ImageIndex(tmp_path / "out").rows
    for position, image_id in enumerate(found):
        assert images.at(position).shape[:2] == tuple(rows[image_id][["height", "width"]])


def test_odd_images_are_converted_and_bad_ones_listed(tmp_path: Path) -> None:
    src = make_images(tmp_path / "src", 2, classes="a")
    odd, pixels = src / "a", np.full((9, 12, 3), 90, np.uint8)
    Image.fromarray(pixels).save(odd / "png_in_disguise.JPEG", "PNG")
    Image.fromarray(pixels).convert("CMYK").save(odd / "cmyk.jpg")
    Image.fromarray(pixels[..., 0]).save(odd / "gray.jpg")
    Image.fromarray(np.full((9, 12), 9000, np.uint16)).save(odd / "deep.png")
    Image.fromarray(np.full((9, 12, 4), 90, np.uint8)).save(odd / "alpha.png")
    good = (odd / "0.jpg").read_bytes()
    (odd / "cut.jpg").write_bytes(good[:-30])
    (odd / "garbage.jpg").write_bytes(bytes(range(256)))
    (odd / "zero.jpg").write_bytes(b"")
    (odd / "text.jpg").write_text("not a picture", encoding="utf-8")
    (odd / "two\nlines.jpg").write_bytes(good)
    (odd / "notes.txt").write_text("no image, and not named like one", encoding="utf-8")
    (odd / "gone.jpg").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(odd) + b"/\xff.jpg")).write_bytes(good)
    report = ingest(src, tmp_path / "out", workers=1)
    assert report.splits[0].images == 7 and report.splits[0].rejected == 7
    assert report.splits[0].others == 1
    reasons = rejections(tmp_path / "out")
    assert {key: reason.split(":")[0] for key, reason in reasons.items()} == {
        "a/cut.jpg": "truncated JPEG",
        "a/garbage.jpg": "not an image",
        "a/zero.jpg": "empty file",
        "a/text.jpg": "not an image",
        "a/two\\nlines.jpg": "the file name holds a line break",
        "a/gone.jpg": "cannot be read",
        "a/\\udcff.jpg": "the file name is not valid UTF-8",
        "a/notes.txt": "not an image file",
    }
    index = ImageIndex(tmp_path / "out")
    modes = {}
    for key, data in zip(index.keys, RecordReader(index).read(np.arange(7)), strict=True):
        image = Image.open(io.BytesIO(data.tobytes()))
        assert image.format == "JPEG"
        modes[key.removeprefix("a/")] = image.mode
    assert {name for name, mode in modes.items() if mode == "L"} == {"gray.jpg", "deep.png"}


def test_resize_is_stored_in_the_index(src: Path, tmp_path: Path) -> None:
    ingest(src, tmp_path / "out", workers=1, resize_shorter=8)
    rows = ImageIndex(tmp_path / "out").rows
    assert set(rows["height"].tolist()) == {8} and max(rows["width"]) == 12


def test_splits_become_data_sets_of_their_own(tmp_path: Path) -> None:
    make_images(tmp_path / "src" / "train", 6, classes="bc")
    make_images(tmp_path / "src" / "val", 4, classes="ab")
    console = Console(file=io.StringIO(), width=120)
    report = ingest(tmp_path / "src", tmp_path / "out", workers=1, console=console)
    assert [(s.name, s.images) for s in report.splits] == [("train", 6), ("val", 4)]
    train, val = ImageIndex(tmp_path / "out/train"), ImageIndex(tmp_path / "out/val")
    assert train.manifest.classes == val.manifest.classes == ["a", "b", "c"]
    assert set(train.labels.tolist()) == {1, 2} and set(val.labels.tolist()) == {0, 1}
    summary = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train" in summary and "images/s" in summary


def test_idx_files_are_ingested(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    for name, kind, values in (("images-idx3", 3, pixels), ("labels-idx1", 1, np.array([2, 0, 1]))):
        header = bytes([0, 0, 8, kind]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
        data = gzip.compress(header + values.astype(np.uint8).tobytes())
        (tmp_path / "src" / f"train-{name}-ubyte.gz").write_bytes(data)
    ingest(tmp_path / "src", tmp_path / "out", workers=1)
    index = ImageIndex(tmp_path / "out")
    assert index.keys == ["00000", "00001", "00002"] and index.labels.tolist() == [2, 0, 1]
    image = Image.open(io.BytesIO(RecordReader(index).read([1])[0].tobytes()))
    assert image.mode == "L" and np.abs(np.asarray(image).astype(int) - pixels[1]).max() < 8


def test_strict_and_nothing_left_make_nothing(tmp_path: Path) -> None:
    src = make_images(tmp_path / "src", 3)
    for i in range(7):
        (src / "a" / f"bad{i}.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"7 of 10 .*a/bad0\.jpg: not an image.*and 2 more.*stric"):
        ingest(src, tmp_path / "out", workers=1, strict=True)
    for path in [*src.glob("?/?.jpg")]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="10 of 10 .*nothing is left to ingest"):
        ingest(src, tmp_path / "out", workers=1)
    assert names(tmp_path) == ["src"]


def test_overwrite_replaces_data_sets_and_nothing_else(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is free
    ingest(src, out, workers=1)
    with pytest.raises(ValueError, match=r"out exists and is not empty; add --overwrite"):
        ingest(src, out, workers=1)
    (src / "a" / "0.jpg").unlink()
    ingest(src, out, workers=1, overwrite=True)
    assert len(ImageIndex(out)) == 22 and names(tmp_path) == ["out", "src"]

    (out / "thesis.tex").write_text("important", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out holds .*thesis\.tex, which is no part"):
        ingest(src, out, workers=1, overwrite=True)
    (out / "thesis.tex").unlink()
    (tmp_path / "splits").mkdir()
    out.rename(tmp_path / "splits" / "train")
    ingest(src, tmp_path / "splits", workers=1, overwrite=True)
    assert len(ImageIndex(tmp_path / "splits")) == 22
    for other in ("web", "file"):
        (tmp_path / other).mkdir() if other == "web" else (tmp_path / other).write_text(
            "x", encoding="utf-8"
        )
    (tmp_path / "web" / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"web holds .*manifest\.json"):
        ingest(src, tmp_path / "web", workers=1, overwrite=True)
    with pytest.raises(ValueError, match="file is a file"):
        ingest(src, tmp_path / "file", workers=1, overwrite=True)


def test_source_and_result_may_not_contain_each_other(src: Path, tmp_path: Path) -> None:
    for out in (src, src / "out"):
        with pytest.raises(ValueError, match="lies inside the source"):
            ingest(src, out)
    with pytest.raises(ValueError, match="lies inside out"):
        ingest(src, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "value"), [("shard_size", -1), ("workers", 0), ("resize_shorter", 0), ("quality", 101)]
)
def test_arguments_out_of_range(src: Path, tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; "):
        ingest(src, tmp_path / "out", **{name: value})  # type: ignore[arg-type]


def test_interruption_leaves_the_old_data_set(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(src, tmp_path / "out", workers=1)
    before = contents(tmp_path / "out")

    def interrupted(plan: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest_containers, "write_piece", interrupted)
    console = Console(file=io.StringIO(), width=200)
    for out in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            ingest(src, tmp_path / out, workers=1, overwrite=True, console=console)
    assert names(tmp_path) == [".new.partial", ".out.partial", "out", "src"]
    assert contents(tmp_path / "out") == before
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"kept in {tmp_path / '.new.partial'}: the same command continues there" in told
    monkeypatch.setattr(ingest_first_pass, "check_images", interrupted)
    with pytest.raises(KeyboardInterrupt):  # nothing is finished, so nothing is kept
        ingest(src, tmp_path / "third", workers=1)
    assert not (tmp_path / ".third.partial").exists()


@contextmanager
def file_size_limit() -> Iterator[None]:
    """A disk that takes no more than 10 kB per file; the test runner's own log must not be open
    for writing under it, so this wraps one call and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_keeps_what_is_finished(src: Path, tmp_path: Path) -> None:
    message = r"cannot write .*out: .*free some space, then run the same command again"
    with file_size_limit(), pytest.raises(ValueError, match=message):
        ingest(src, tmp_path / "out", workers=1, console=Console(quiet=True))
    assert names(tmp_path) == [".out.partial", "src"]
    report = ingest(src, tmp_path / "out", workers=1)
    assert (report.resumed_images, report.resumed_containers) == (23, 0)
    assert names(tmp_path) == ["out", "src"]


@pytest.mark.slow
def test_a_killed_ingest_leaves_no_final_name_and_the_next_one_continues(tmp_path: Path) -> None:
    src = make_images(tmp_path / "src", 40)
    script = (
        "import os, signal, sys\n"
        "from coke.tools.datasets import ingest, ingest_side_files\n"
        "def fatal(*args, **kwargs):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "ingest_side_files.write_index = fatal\n"  # all containers are written by then
        "if __name__ == '__main__':\n"
        "    ingest.ingest(sys.argv[1], sys.argv[2], workers=2, shard_size=10)\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(src), str(tmp_path / "out")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
    )
    _, errors = process.communicate(
        timeout=PATIENCE_S
    )  # ends only when the workers have ended, too
    assert process.returncode == -signal.SIGKILL, errors.decode()
    partial = ".out.partial"
    assert names(tmp_path) == sorted([partial, "script.py", "src"])
    assert list((tmp_path / partial).glob("*/dataset/images-00003.tar"))
    report = ingest(src, tmp_path / "out", workers=1, shard_size=10)
    assert (report.resumed_images, report.resumed_containers) == (40, 4)
    assert names(tmp_path) == ["out", "script.py", "src"]


def test_a_data_set_moved_aside_by_a_killed_run_comes_back(src: Path, tmp_path: Path) -> None:
    ingest(src, tmp_path / "out", workers=1)
    (tmp_path / "out").rename(tmp_path / ".out.replaced")
    with pytest.raises(ValueError, match="add --overwrite"):
        ingest(src, tmp_path / "out", workers=1)
    assert len(ImageIndex(tmp_path / "out")) == 23 and names(tmp_path) == ["out", "src"]


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_stops_workers_at_once(src: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from coke.tools.datasets import ingest, ingest_first_pass\n"
        "def slow(chunk):\n"
        "    os.killpg(0, signal.SIGINT)\n"  # what a terminal does: all processes get it
        "    time.sleep(600)\n"
        "ingest_first_pass.check_images = slow\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    ingest.ingest(sys.argv[1], sys.argv[2], workers=2)\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(src), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        start_new_session=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert b"KeyboardInterrupt" in done.stderr and b"ValueError" not in done.stderr
    assert names(tmp_path) == ["script.py", "src"]


def _die(chunk: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_not_a_hang(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_first_pass, "check_images", _die)
    with pytest.raises(ValueError, match="a worker process died.*fewer --workers"):
        ingest(src, tmp_path / "out", workers=2)
    assert names(tmp_path) == ["src"]


def test_out_that_cannot_be_written_is_refused(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_first_pass, "check_images", None)  # before any image is read
    with pytest.raises(ValueError, match="cannot write .*: File name too long; choose another"):
        ingest(src, tmp_path / ("a" * 300), workers=1, console=Console(quiet=True))
    assert names(tmp_path) == ["src"]


def test_what_can_be_asked_before_the_source_is_listed_is_asked_then(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "find_splits", None)
    (tmp_path / "file").touch()
    for out in ("file/out", "file/deep/out"):
        with pytest.raises(ValueError, match=rf"out .*{out} lies below .*/file, which is a file"):
            ingest(src, tmp_path / out)
    with pytest.raises(ValueError, match=r"base .*gone is no data set"):
        ingest(src, tmp_path / "out", base=tmp_path / "gone")
    for out, message in {"src": "lies inside the source", "": "lies inside out"}.items():
        with pytest.raises(ValueError, match=message):
            ingest(src, tmp_path / out)
    assert names(tmp_path) == ["file", "src"]
