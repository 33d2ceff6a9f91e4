"""An ingest killed at any moment goes on to the same bytes as one that was not."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import coke
from coke.files import inner_place
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.datasets import ingest_containers, ingest_writes
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.verify import verify
from tests.support.patience import PATIENCE_S, wait_until

REPOSITORY = Path(coke.__file__).parents[1]
IMAGES = 80
CHECKED, STORED = 16, 8  # images of a piece; 76 of the 80 are good
PIECES = 5 + 10
SETTINGS: dict[str, Any] = {"shard_size": 8, "dedupe": "report"}
OPTIONS: dict[str, Any] = {**SETTINGS, "workers": 1, "console": Console(quiet=True)}

# Runs one ingest after the other, each in a process group of its own to be killed; forked, because
# starting Python takes longer than the whole ingest.
LAUNCHER = """
import json, os, signal, sys
from rich.console import Console
from coke.files import journal
from coke.tools.datasets.ingest import ingest
save = journal.save
def die_after(pieces):
    def counted(*piece):
        nonlocal pieces
        if pieces == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        pieces -= 1
        save(*piece)
    journal.save = counted
if __name__ == "__main__":
    for line in sys.stdin:
        src, out, options, pieces = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            if pieces is not None:
                die_after(pieces)
            ingest(src, out, console=Console(quiet=True), **options)
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good JPEGs, some to be encoded, some equal, four unusable, and a file that is no image."""
    root = tmp_path_factory.mktemp("resume") / "src"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = root / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (64 + i % 5, 96, 3), dtype=np.uint8))
        image.save(path, "PNG" if i % 7 == 3 else "JPEG")
        if i % 20 == 19:
            path.write_bytes(b"no image")
    (root / "b" / "copy.jpg").write_bytes((root / "a" / "00.jpg").read_bytes())
    (root / "b" / "01.jpg").unlink()
    (root / "notes.txt").write_text("x", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def whole(src: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted ingest makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ingest(src, out, **OPTIONS)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Launcher:
    """Starts an ingest and kills it, with all its processes, at a moment of our choice."""

    def __init__(self, folder: Path) -> None:
        (folder / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, str(folder / "launcher.py")],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def kill_after(
        self, pieces: int, delay: float, src: Path, out: Path, options: dict[str, Any]
    ) -> None:
        """Lets the ingest finish so many pieces, waits a little longer, and kills it."""
        group = self._start(src, out, options, None)
        partial, seen = out.parent / f".{out.name}.partial", False
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen = seen or partial.exists()
            finished = len([*partial.glob("*/journal/*.done")])
            if (seen and finished >= pieces) or (seen and not partial.exists()):
                break
            time.sleep(0.001)
        time.sleep(delay)
        with suppress(ProcessLookupError):  # it had ended
            os.killpg(group, signal.SIGKILL)
        assert self._answer() == "ended"

    def die_after(self, pieces: int, src: Path, out: Path, options: dict[str, Any]) -> None:
        """Lets the ingest of one worker kill itself where it would record one piece more."""
        assert options["workers"] == 1
        self._start(src, out, options, pieces)
        assert self._answer() == "ended"

    def _start(self, src: Path, out: Path, options: dict[str, Any], pieces: int | None) -> int:
        """Process group of an ingest that has begun."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(src), str(out), options, pieces]) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    started = Launcher(tmp_path_factory.mktemp("launcher"))
    yield started
    started.close()


def is_finished(out: Path) -> bool:
    return out.exists() and not (out.parent / f".{out.name}.partial").exists()


@pytest.mark.parametrize("pieces", [0, 1, 4, 5, 6, 14])
def test_killed_after_so_many_pieces_it_does_only_the_others(
    src: Path, whole: Path, launcher: Launcher, tmp_path: Path, pieces: int
) -> None:
    out = tmp_path / "out"
    launcher.die_after(pieces, src, out, {**SETTINGS, "workers": 1})
    assert not out.exists()
    report = ingest(src, out, **OPTIONS)
    assert report.resumed_images == min(IMAGES, CHECKED * pieces)
    assert report.resumed_containers == max(0, pieces - IMAGES // CHECKED)
    assert contents(out) == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_killed_at_random_moments_it_continues_to_the_same_bytes(
    src: Path, whole: Path, launcher: Launcher, tmp_path: Path
) -> None:
    """How far each ingest gets depends on the machine; the result must not."""
    moments = random.Random(0)
    expected = contents(whole)
    for attempt, pieces in enumerate((0, 1, 3, 5, 6, 9, 14, PIECES)):
        out = tmp_path / f"out{attempt}"
        options = {**SETTINGS, "workers": 1 + attempt % 2}
        # So many pieces are finished, and some milliseconds have gone by.
        launcher.kill_after(pieces, moments.uniform(0, 0.02), src, out, options)
        assert not out.exists() or contents(out) == expected, f"killed after {pieces} pieces"
        if not is_finished(out):
            ingest(src, out, **OPTIONS)
        assert contents(out) == expected, f"killed after {pieces} pieces"
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(out.name)) == [out.name]


@pytest.mark.slow
def test_killed_while_it_replaces_its_base_it_never_loses_a_data_set(
    src: Path, launcher: Launcher, tmp_path: Path
) -> None:
    """The old data set is there whole at every moment, and its ids are kept whatever happens."""
    old = tmp_path / "old"
    ingest(src / "b", old, **OPTIONS)
    old_contents = contents(old)
    grown = tmp_path / "grown"
    ingest(src / "b", grown, **OPTIONS)
    new_src = Path(shutil.copytree(src / "b", tmp_path / "src"))
    shutil.copy(src / "a" / "02.jpg", new_src / "00-first.jpg")
    (new_src / "05.jpg").unlink()
    ingest(new_src, grown, base=grown, overwrite=True, **OPTIONS)
    expected = contents(grown)
    assert ImageIndex(grown).manifest.tombstones == 1
    moments = random.Random(1)
    for attempt, pieces in enumerate((0, 2, 4, 7, 8, 8, 8, 8)):
        out = tmp_path / f"out{attempt}"
        shutil.copytree(old, out)
        options = {**SETTINGS, "workers": 1, "overwrite": True, "base": str(out)}
        launcher.kill_after(pieces, moments.uniform(0, 0.01), new_src, out, options)
        aside = tmp_path / f".{out.name}.replaced"
        found = contents(out if out.exists() else aside)
        assert found in (old_contents, expected)
        if not is_finished(out):
            ingest(new_src, out, base=out, overwrite=True, **OPTIONS)
        assert contents(out) == expected
        assert not aside.exists() and not (tmp_path / f".{out.name}.partial").exists()


@contextmanager
def interrupted_after(pieces: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C after so many containers."""
    done = 0

    def write_piece(task: ingest_writes.WriteTask) -> ingest_writes.Written:
        nonlocal done
        if done == pieces:
            raise KeyboardInterrupt
        done += 1
        return ingest_writes.write_piece(task)

    with monkeypatch.context() as patch:
        patch.setattr(ingest_containers, "write_piece", write_piece)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_what_an_interrupted_run_has_finished_is_not_done_again(
    src: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with interrupted_after(3, monkeypatch):
        ingest(src, out, **OPTIONS)
    (kept,) = tmp_path.glob(".out.partial/*/dataset/images-00001.tar")
    before = kept.stat().st_ino
    console = Console(file=io.StringIO(), width=200)
    report = ingest(src, out, **{**OPTIONS, "console": console})
    assert (report.resumed_images, report.resumed_containers) == (IMAGES, 3)
    assert (out / "images-00001.tar").stat().st_ino == before
    assert contents(out) == contents(whole)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "80 verdicts and 3 containers were there from an interrupted run" in told


def test_a_mounted_volume_is_continued_and_gets_nothing_unfinished(
    src: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "volume"
    out.mkdir()
    monkeypatch.setattr(inner_place, "is_mount", lambda folder: folder == out)
    with interrupted_after(8, monkeypatch):
        ingest(src, out, **OPTIONS)
    assert [path.name for path in out.iterdir()] == [".coke.partial"]
    report = ingest(src, out, **OPTIONS)
    assert report.resumed_images + report.resumed_containers > 0
    assert contents(out) == contents(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]
    assert verify(out, console=Console(quiet=True)) == []


def test_other_settings_or_restart_discard_unfinished_work(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with interrupted_after(3, monkeypatch):
        ingest(src, out, **OPTIONS)
    console = Console(file=io.StringIO(), width=200)
    with interrupted_after(3, monkeypatch):
        ingest(src, out, quality=90, **{**OPTIONS, "console": console})
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "had another source, other settings or another version" in told
    report = ingest(src, out, quality=90, restart=True, **OPTIONS)
    assert (report.resumed_images, report.resumed_containers) == (0, 0)


def test_files_that_change_between_the_runs_are_looked_at_again(
    tmp_path: Path, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(src, tmp_path / "src"))
    out = tmp_path / "out"
    with interrupted_after(9, monkeypatch):  # of ten containers
        ingest(mine, out, **OPTIONS)
    (mine / "a" / "10.jpg").write_bytes((mine / "a" / "12.jpg").read_bytes())
    (mine / "b" / "19.jpg").write_bytes((mine / "a" / "12.jpg").read_bytes())  # 19 was unusable
    report = ingest(mine, out, **OPTIONS)
    ingest(mine, tmp_path / "fresh", **OPTIONS)
    assert contents(out) == contents(tmp_path / "fresh")
    # Pieces of 16: a/10 is in the first, b/19 in the fourth. Containers behind b/19 moved by one.
    assert report.resumed_images == IMAGES - 32
    assert 0 < report.resumed_containers < 10


@pytest.mark.slow
def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(src, tmp_path / "src"))
    shutil.move(mine / "a" / "00.jpg", tmp_path / "away.jpg")
    (mine / "a" / "00.jpg").symlink_to(tmp_path / "mounted.jpg")
    out = tmp_path / "out"
    with interrupted_after(1, monkeypatch):
        ingest(mine, out, **OPTIONS)
    shutil.move(tmp_path / "away.jpg", tmp_path / "mounted.jpg")
    ingest(mine, out, **OPTIONS)
    assert ImageIndex(out).keys[0] == "a/00.jpg"


# Kills itself at one of the instants of publishing.
FATAL = """
import os, pathlib, signal, sys
from coke.files import durable
from coke.tools.datasets.ingest import ingest
src, out, moment = sys.argv[1:]
rename, flush = pathlib.Path.rename, durable.flush
def fatal_rename(path, target):
    if str(target) == out:  # the old data set is out of the way, the new one not yet in place
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)
def fatal_flush(path):
    if str(path) == os.path.dirname(out):  # the new data set is in place
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
if moment == "between":
    pathlib.Path.rename = fatal_rename
else:
    durable.flush = fatal_flush
base = {"base": out, "overwrite": True} if os.path.exists(out) else {}
ingest(src, out, shard_size=8, dedupe="report", workers=1, **base)
"""


def die_while_publishing(src: Path, out: Path, moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FATAL, str(src), str(out), moment],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.slow
def test_killed_between_the_two_renamings_the_old_data_set_comes_back(
    src: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ingest(src / "b", out, **OPTIONS)
    old = contents(out)
    die_while_publishing(src / "b", out, "between")
    assert not out.exists() and contents(tmp_path / ".out.replaced") == old
    report = ingest(src / "b", out, base=out, overwrite=True, **OPTIONS)
    assert report.resumed_images == 40 and report.splits[0].kept == len(ImageIndex(out))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_killed_right_after_publishing_the_same_command_says_that_it_is_done(
    src: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    die_while_publishing(src, out, "after")
    assert contents(out) == contents(whole) and (tmp_path / ".out.partial").exists()
    console = Console(file=io.StringIO(), width=200)
    report = ingest(src, out, **{**OPTIONS, "console": console})
    assert "was finished by an earlier run" in console.file.getvalue()  # type: ignore[attr-defined]
    assert report.splits[0].images == len(ImageIndex(out))
    assert contents(out) == contents(whole) and not (tmp_path / ".out.partial").exists()
    with pytest.raises(ValueError, match="exists and is not empty"):
        ingest(src, out, **OPTIONS)


@pytest.mark.slow
def test_two_runs_do_not_write_the_same_data_set(src: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from coke.tools.datasets import ingest, ingest_first_pass\n"
        "ingest_first_pass.check_images = lambda task: time.sleep(600)\n"
        "ingest.ingest(sys.argv[1], sys.argv[2], workers=1)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(src), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: any(tmp_path.glob(".out.partial/*/journal")), "the first run")
        with pytest.raises(ValueError, match=f"process {first.pid} on .* is writing .*out at this"):
            ingest(src, tmp_path / "out", **OPTIONS)
    finally:
        first.kill()
        first.wait()
    ingest(src, tmp_path / "out", **OPTIONS)  # the dead hold no locks
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
