"""`~` in arguments, settings and tables is the home folder; URLs are no paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coke.cli import app
from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.path_arguments import with_home
from coke.tools.training import train as train_module
from tests.support.command_line import fails, run
from tests.support.stripes import draw_stripes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "/home/ada"),
        ("~/a b", "/home/ada/a b"),
        ("--out=~/x", "/home/ada/x"),
        ("--cache-dir=~", "/home/ada"),
        ("machine.cache_dir=~/x", "/home/ada/x"),
        ("./~", None),
        ("a~/b", None),
        ("--out=a~b", None),
        ("s3://bucket/~/x", None),
        ("~no-such-user/x", None),
        ("--resume", None),
        ("", None),
    ],
)
def test_where_a_tilde_counts(
    given: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    name = given.partition("=")[0] + "=" if "=" in given else ""
    assert with_home(given) == (given if expected is None else name + expected)


def test_a_whole_way_from_a_table_to_tables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_stripes(home / "pictures", 6, seed=0)
    rows = [f"~/pictures/{path.relative_to(home / 'pictures')},0"
            for path in sorted((home / "pictures").rglob("*.jpg"))]  # fmt: skip
    (home / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    assert run(monkeypatch, "ingest", "~/t.csv", "~/data", "--workers", 1) == 0
    assert len(ImageIndex("~/data")) == len(ImageIndex(home / "data")) == 6
    assert run(monkeypatch, "verify", "~/data") == 0
    result = CliRunner().invoke(app, ["inspect", "~/data"])
    assert result.exit_code == 0
    assert sorted(path.name for path in home.iterdir()) == ["data", "pictures", "t.csv"]
    assert list(Path.cwd().iterdir()) == []


def test_settings_and_options_of_training(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "c.toml").write_text('[machine]\ncache_dir = "~/cache"\n', encoding="utf-8")
    seen: list[tuple[Config, object, object]] = []
    monkeypatch.setattr(
        train_module, "train", lambda config, data, out, **_: seen.append((config, data, out))
    )
    assert run(monkeypatch, "train", "~/data", "--out=~/run", "--config=~/c.toml") == 0
    assert run(monkeypatch, "train", "~/data", "--set", "machine.cache_dir=~/other") == 0
    (first, data, out), (second, _, _) = seen
    assert (data, out) == (str(home / "data"), home / "run")
    assert first.machine.cache_dir in ("~/cache", str(home / "cache"))  # expanded when it is used
    assert second.machine.cache_dir == str(home / "other")


@pytest.mark.parametrize(
    "arguments",
    [
        "demo --out s3://b/x",
        "train data --out s3://b/x",
        "train data --config https://host/x",
        "train data --init-from https://host/x",
        "index http://host/x",
        "index file s3://b/x",
        "ingest src out --base s3://b/x",
        "cluster s3://b/x out",
        "cluster features s3://b/x",
        "embed run data s3://b/x",
        "runs s3://b/x",
        "eval knn s3://b/x data",
        "inspect data --views cifar10 --out s3://b/x",
        "bench-epoch data --html s3://b/x",
    ],
)
def test_a_url_is_no_path_of_this_machine(
    arguments: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(monkeypatch, capsys, *arguments.split(), status=2)
    assert "://" in line and "/x, and must be a path on this machine" in line
    assert list(Path.cwd().iterdir()) == []
