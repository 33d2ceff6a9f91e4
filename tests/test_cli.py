"""The command line: what it calls, and how it ends on bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from coke import cli
from coke.config import Config
from coke.tools import train as train_module
from tests.tools.conftest import draw_stripes


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs the command line in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["coke", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """The one line of error of a command that must fail."""
    capsys.readouterr()
    status = run(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert "Traceback" not in captured.err + captured.out
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    return lines[0]


def test_ten_kinds_of_bad_input_end_in_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: object) -> str:
        return fails(monkeypatch, capsys, *arguments)

    out = tmp_path / "out"
    assert "nowhere does not exist" in error("ingest", tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    assert "empty" in error("ingest", tmp_path / "empty", out)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    assert "no images" in error("ingest", tmp_path / "text", out)

    src = tmp_path / "src"
    draw_stripes(src, 12, seed=0)
    good = (src / "vertical" / "001.jpg").read_bytes()
    (src / "vertical" / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (src / "vertical" / "garbage.jpg").write_bytes(bytes(range(256)) * 4)
    (src / "vertical" / "zero.jpg").write_bytes(b"")
    (src / "vertical" / "unreadable.jpg").symlink_to(tmp_path / "gone.jpg")
    line = error("ingest", src, out, "--strict", "--workers", 1)
    assert "4 of 16" in line
    for name in ("truncated.jpg", "garbage.jpg", "zero.jpg", "unreadable.jpg"):
        assert name in line
    assert not out.exists()
    assert run(monkeypatch, "ingest", src, out, "--workers", 1) == 0
    rejected = (out / "rejected.tsv").read_text()
    for name in ("truncated.jpg", "garbage.jpg", "zero.jpg", "unreadable.jpg"):
        assert name in rejected
    assert "--overwrite" in error("ingest", src, out)

    fast = "--preset demo --epochs 1 --batch-size 6 --set view.size=16 --set model.width=8"
    small = (*fast.split(), "--set", "clustering.n_clusters=[2, 3]")
    assert "unknown preset 'huge'; choose one of demo" in error("train", out, "--preset", "huge")
    line = error("train", out, "--set", "model.dpth=3")
    assert "unknown config key 'model.dpth'; valid keys: depth" in line
    assert run(monkeypatch, "train", out, "--out", tmp_path / "run", *small) == 0
    draw_stripes(tmp_path / "more", 14, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "more", tmp_path / "b", "--workers", 1) == 0
    line = error("train", tmp_path / "b", "--out", tmp_path / "run", "--resume")
    assert "another data set" in line and "12 images" in line and "14" in line
    assert "is no data set" in error("train", tmp_path / "src")
    assert "--views 1" in error("train", out, "--views", 2)
    (tmp_path / "bad.toml").write_text("epochs = 1\nbatchsize = 2\n")
    assert "unknown config key 'batchsize'" in error(
        "train", out, "--config", tmp_path / "bad.toml"
    )
    assert "device is 'tpu'" in error("train", out, "--device", "tpu", *small)
    assert "--decode is 'some'" in error("verify", out, "--decode", "some")


def test_options_beat_assignments_beat_the_file_beats_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(
        'preset = "cifar10"\nepochs = 1\nbatch_size = 2\n[model]\ndepth = 18\nwidth = 20\n'
    )
    seen: list[Config] = []
    monkeypatch.setattr(train_module, "train", lambda config, *_, **__: seen.append(config))
    arguments = ["--config", tmp_path / "c.toml", "--set", "model.width=24"]
    assert run(monkeypatch, "train", "data", *arguments, "--set", "epochs=3", "--epochs", 4) == 0
    (config,) = seen
    assert (config.epochs, config.batch_size) == (4, 2)
    assert (config.model.depth, config.model.width) == (18, 24)
    assert config.preset == "cifar10" and config.optimizer.name == "sgd"


def test_verify_ends_with_status_1_on_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "src" / "a.png")
    assert run(monkeypatch, "ingest", tmp_path / "src", tmp_path / "out", "--workers", 1) == 0
    assert run(monkeypatch, "verify", tmp_path / "out", "--decode", "all") == 0
    tar = tmp_path / "out" / "images-00000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert run(monkeypatch, "verify", tmp_path / "out") == 1


def test_resume_without_settings_takes_the_saved_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 12, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "src", tmp_path / "d", "--workers", 1) == 0
    fast = "--preset demo --epochs 1 --batch-size 6 --set view.size=16 --set model.width=8"
    start = ("train", tmp_path / "d", "--out", tmp_path / "run")
    heads = ("--set", "clustering.n_clusters=[2, 3]")
    assert run(monkeypatch, *start, *fast.split(), *heads) == 0
    assert "all 1 epochs are done" in fails(monkeypatch, capsys, *start, "--resume")
    line = fails(monkeypatch, capsys, *start, "--resume", "--epochs", 5)
    assert "epochs: 1 != 5" in line
    line = fails(monkeypatch, capsys, "train", tmp_path / "d", "--resume", "--preset", "demo")
    assert "--resume needs --out" in line


def test_help_does_not_import_torch() -> None:
    """Start-up stays quick: the libraries that take seconds are imported by the commands."""
    script = (
        "import sys\nfrom coke.cli import main\nsys.argv = ['coke', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "slow = ('torch', 'numpy', 'webdataset', 'nvidia.dali', 'rich.markdown')\n"
        "sys.exit(any(m in sys.modules for m in slow))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    for command in ("ingest", "verify", "train", "bench-epoch", "eval", "demo"):
        assert command in done.stdout


def test_the_source_can_be_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 4, seed=0)
    rows = "".join(f"{p.relative_to(tmp_path / 'src')}\n" for p in tmp_path.rglob("*.jpg"))
    (tmp_path / "src" / "all.csv").write_text(rows)
    ingest = ("ingest", tmp_path / "src", tmp_path / "out", "--workers", 1, "--source")
    assert "no .parquet files" in fails(monkeypatch, capsys, *ingest, "parquet")
    assert "choose one of auto, folders, idx" in fails(monkeypatch, capsys, *ingest, "csv")
    assert run(monkeypatch, *ingest, "table") == 0
    assert len((tmp_path / "out" / "keys.txt").read_text().splitlines()) == 4
    line = fails(monkeypatch, capsys, "ingest", "memory://nothing", tmp_path / "b")
    assert "source memory://nothing does not exist" in line


def test_inspect_draws_a_sheet_or_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 4, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "src", tmp_path / "out", "--workers", 1) == 0
    assert run(monkeypatch, "inspect", tmp_path / "out") == 0
    assert "vertical" in capsys.readouterr().out
    inspect, sheet = ("inspect", tmp_path / "out"), tmp_path / "sheet.png"
    given = ("--views", "cifar10", "--out", sheet, "--loader", "pil", "--images", 2)
    assert run(monkeypatch, *inspect, *given) == 0
    with Image.open(sheet) as image:
        assert image.width > 200
    assert "exists; give --overwrite" in fails(monkeypatch, capsys, *inspect, *given)
    error = fails(monkeypatch, capsys, *inspect, "--views", "imagenet", "--out", sheet)
    assert "unknown view recipe 'imagenet'; choose one of demo, cifar10, imagenet-1view" in error
    error = fails(monkeypatch, capsys, *inspect, "--views", "cifar10")
    assert "needs --out" in error
    assert "needs --views" in fails(monkeypatch, capsys, *inspect, "--out", sheet)
