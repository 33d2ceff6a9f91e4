"""The command line: what it calls, and how it ends on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coke.config.config import Config
from coke.config.wishes import Wishes
from coke.distributed.launch import Outcome
from coke.tools.runs.interruption import RunStopped
from coke.tools.training import train as train_module
from tests.support.command_line import fails, run
from tests.support.stripes import draw_stripes


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
    (tmp_path / "text" / "notes.txt").write_text("no image", encoding="utf-8")
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
    rejected = (out / "rejected.tsv").read_text(encoding="utf-8")
    for name in ("truncated.jpg", "garbage.jpg", "zero.jpg", "unreadable.jpg"):
        assert name in rejected
    assert "--overwrite" in error("ingest", src, out)

    fast = "--preset demo --epochs 1 --batch-size 6 --set data.view.size=16 --set model.width=8"
    small = (*fast.split(), "--set", "clustering.n_clusters=[2, 3]")
    assert "unknown preset 'huge'; choose one of demo" in error("train", out, "--preset", "huge")
    line = error("train", out, "--set", "model.dpth=3")
    assert "unknown config key 'model.dpth'; valid keys: backbone" in line
    assert run(monkeypatch, "train", out, "--out", tmp_path / "run", *small) == 0
    draw_stripes(tmp_path / "more", 14, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "more", tmp_path / "b", "--workers", 1) == 0
    line = error("train", tmp_path / "b", "--out", tmp_path / "run", "--resume")
    assert "another data set" in line and "12 images" in line and "14" in line
    assert "is no data set" in error("train", tmp_path / "src")
    assert "train on 1 large view or more" in error("train", out, "--views", 0)
    (tmp_path / "bad.toml").write_text("seed = 1\n[data]\nbatchsize = 2\n", encoding="utf-8")
    assert "unknown config key 'data.batchsize'" in error(
        "train", out, "--config", tmp_path / "bad.toml"
    )
    assert "device is 'tpu'" in error("train", out, "--device", "tpu", *small)
    assert "--decode is 'some'" in error("verify", out, "--decode", "some")


def test_options_beat_assignments_beat_the_file_beats_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(
        'preset = "cifar10"\n[optimizer]\nepochs = 1\n[data]\nbatch_size = 2\n'
        "[model]\ndepth = 18\nwidth = 20\n",
        encoding="utf-8",
    )
    seen: list[Config] = []
    monkeypatch.setattr(train_module, "train", lambda config, *_, **__: seen.append(config))
    arguments = ["--config", tmp_path / "c.toml", "--set", "model.width=24"]
    assert (
        run(monkeypatch, "train", "data", *arguments, "--set", "optimizer.epochs=3", "--epochs", 4)
        == 0
    )
    (config,) = seen
    assert (config.optimizer.epochs, config.data.batch_size) == (4, 2)
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


@pytest.mark.slow
def test_resume_without_settings_takes_the_saved_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 12, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "src", tmp_path / "d", "--workers", 1) == 0
    fast = "--preset demo --epochs 1 --batch-size 6 --set data.view.size=16 --set model.width=8"
    start = ("train", tmp_path / "d", "--out", tmp_path / "run")
    heads = ("--set", "clustering.n_clusters=[2, 3]")
    assert run(monkeypatch, *start, *fast.split(), *heads) == 0
    assert "all 1 epochs are done" in fails(monkeypatch, capsys, *start, "--resume")
    line = fails(monkeypatch, capsys, *start, "--resume", "--epochs", 5)
    assert "epochs: 1 != 5" in line
    line = fails(monkeypatch, capsys, "train", tmp_path / "d", "--resume", "--preset", "demo")
    assert "--resume needs --out" in line


@pytest.mark.parametrize(
    ("arguments", "resume"),
    [
        (["data"], "start"),
        (["--resume", "data"], "resume"),
        (["data", "--resume"], "resume"),
        (["data", "--resume", "auto"], "auto"),
        (["--resume", "auto", "data"], "auto"),
        (["--resume=auto", "data"], "auto"),
    ],
)
def test_resume_takes_auto_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], resume: str
) -> None:
    seen: list[tuple[object, object]] = []
    monkeypatch.setattr(
        train_module, "train", lambda _, data, *a, resume, **b: seen.append((data, resume))
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("[optimizer]\nepochs = 3\n", encoding="utf-8")
    assert run(monkeypatch, "train", *arguments, "--out", tmp_path / "run") == 0
    assert seen == [("data", resume)]


def test_a_bad_resume_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(monkeypatch, capsys, "train", "data", "--resume=maybe", "--out", "run")
    assert "--resume is 'maybe'; give --resume alone, or --resume auto" in line


def test_options_of_a_run_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Config, dict[str, object]]] = []
    monkeypatch.setattr(train_module, "train", lambda c, *_, **given: seen.append((c, given)))
    given = "--probe-every 2 --probe-data labelled --checkpoint-every 50 --init-from w --wandb p"
    assert run(monkeypatch, "train", "data", *given.split()) == 0
    ((config, options),) = seen
    assert (config.run.probe_every, config.run.checkpoint_every) == (2, 50)
    expected = {
        "ids": None,
        "resume": "start",
        "extend": None,
        "init_from": Path("w"),
        "probe_data": "labelled",
        "wandb": "p",
    }
    assert options == expected


def test_a_run_that_was_stopped_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise RunStopped("saved in run: go on with --resume")

    monkeypatch.setattr(train_module, "train", stopped)
    assert run(monkeypatch, "train", "data") == 75
    assert "stopped: saved in run: go on with --resume" in capsys.readouterr().err


def test_runs_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no runs" in fails(monkeypatch, capsys, "runs", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.toml").write_text("[optimizer]\nepochs = 3\n", encoding="utf-8")
    assert run(monkeypatch, "runs", tmp_path) == 0
    assert "-/3" in capsys.readouterr().out


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
    for command in ("ingest", "verify", "train", "bench-epoch", "eval", "embed", "cluster", "demo"):
        assert command in done.stdout


def test_the_source_can_be_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 4, seed=0)
    rows = "".join(f"{p.relative_to(tmp_path / 'src')}\n" for p in tmp_path.rglob("*.jpg"))
    (tmp_path / "src" / "all.csv").write_text(rows, encoding="utf-8")
    ingest = ("ingest", tmp_path / "src", tmp_path / "out", "--workers", 1, "--source")
    assert "no .parquet files" in fails(monkeypatch, capsys, *ingest, "parquet")
    assert "choose one of auto, arrow, cifar" in fails(monkeypatch, capsys, *ingest, "csv")
    assert run(monkeypatch, *ingest, "table") == 0
    assert len((tmp_path / "out" / "keys.txt").read_text(encoding="utf-8").splitlines()) == 4
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
    assert "unknown view recipe 'imagenet'; choose one of demo, cifar10, cifar10-2view" in error
    error = fails(monkeypatch, capsys, *inspect, "--views", "cifar10")
    assert "needs --out" in error
    assert "needs --views" in fails(monkeypatch, capsys, *inspect, "--out", sheet)


def test_embed_and_cluster_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_stripes(tmp_path / "src", 12, seed=0)
    assert run(monkeypatch, "ingest", tmp_path / "src", tmp_path / "d", "--workers", 1) == 0
    embedding, out = tmp_path / "embedding", tmp_path / "clusters"
    given = ("--preset", "cifar10", "--size", 8, "--dtype", "float16", "--batch-size", 5)
    assert run(monkeypatch, "embed", "pixels", tmp_path / "d", embedding, *given) == 0
    assert np.load(embedding / "features.npy").shape == (12, 3 * 8 * 8)
    options = "--clusters 2 --min-size 5 --max-size 7 --metric euclidean --passes 3 --batch-size 4"
    options += " --restarts 2 --seed 1"
    assert run(monkeypatch, "cluster", embedding, out, *options.split()) == 0
    assert "asked for: at least 5, at most 7" in capsys.readouterr().out
    assert len((out / "labels.tsv").read_text(encoding="utf-8").splitlines()) == 13
    settings = json.loads((out / "summary.json").read_text(encoding="utf-8"))["settings"]
    assert settings == {
        "clusters": 2, "min_ratio": None,
        "max_ratio": None, "min_size": 5, "max_size": 7, "metric": "euclidean",
        "passes": 3, "batch_size": 4, "restarts": 2, "seed": 1,
    }  # fmt: skip


def test_features_that_cannot_be_clustered_end_in_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    zero, hole = x.copy(), x.copy()
    zero[3], hole[4, 2] = 0, np.nan
    for name, array in (("x", x), ("zero", zero), ("hole", hole), ("flat", x[0])):
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "objects.npy", np.array([None, x], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    (tmp_path / "x.txt").write_text("1,2,3", encoding="utf-8")
    for folder in ("empty", "widths", "types"):
        (tmp_path / folder).mkdir()
    for folder, other in (("widths", x[:, :2]), ("types", x.astype(float))):
        np.save(tmp_path / folder / "1.npy", x)
        np.save(tmp_path / folder / "2.npy", other)
    before = sorted(tmp_path.iterdir())
    k = ("--clusters", 5)
    for name, options, message in (
        ("gone.npy", k, "gone.npy do not exist; give a file"),
        ("x.txt", k, "x.txt are no .npy, .npz, .parquet, .safetensors, .csv, .tsv file"),
        ("empty", k, "holds no feature files"),
        ("widths", k, "2.npy has rows of width 2"),
        ("types", k, "2.npy has rows of type float64"),
        ("flat.npy", k, "has shape (4,), features are (N, D)"),
        ("objects.npy", k, "holds pickled Python objects, which are not read"),
        ("two.npz", k, "a (30, 4), b (30, 4); choose one with --key NAME"),
        ("hole.npy", k, "hole.npy has nan in row 4, column 2"),
        ("zero.npy", k, "zero.npy has a zero vector in row 3"),
        ("x.npy", (), "--clusters is 100, but there are only 30 rows"),
        ("x.npy", (*k, "--min-size", 7), "min_size is 7: 5 clusters of that size need 35 points"),
        ("x.npy", (*k, "--max-size", 5), "max_size is 5: 5 clusters of that size hold 25 points"),
        ("x.npy", (*k, "--min-ratio", 1, "--min-size", 1), "both give the smallest size"),
        ("x.npy", (*k, "--metric", "dot"), "--metric is 'dot'; choose one of cosine, euclidean"),
    ):
        features = tmp_path / name
        assert message in fails(
            monkeypatch, capsys, "cluster", features, tmp_path / "out", *options, status=2
        )
        assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [(Outcome(0), ""), (Outcome(75), ""), (Outcome(1, "rank 1 of 2 died"), "rank 1 of 2 died")],
)
def test_nproc_runs_the_same_command_as_ranks_and_ends_as_they_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Outcome,
    shown: str,
) -> None:
    started: list[tuple[int, list[str]]] = []

    def launch(nproc: int, arguments: list[str]) -> Outcome:
        started.append((nproc, arguments))
        return outcome

    monkeypatch.setattr("coke.distributed.launch.launch", launch)
    monkeypatch.delenv("RANK", raising=False)
    command = ["train", "data", "--nproc", "2", "--accumulate", "4"]
    assert run(monkeypatch, *command) == outcome.status
    assert started == [(2, command)]
    assert shown in capsys.readouterr().err


def test_a_rank_starts_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Wishes] = []
    monkeypatch.setattr(train_module, "train", lambda config, *_, **__: seen.append(config))
    monkeypatch.setenv("RANK", "0")
    options = ["--accumulate", 4, "--memory-budget", "16GiB"]
    assert run(monkeypatch, "train", "data", "--nproc", 2, *options) == 0
    assert (seen[0].given("optimizer.accumulate"), seen[0].machine.memory_budget) == (4, "16GiB")
