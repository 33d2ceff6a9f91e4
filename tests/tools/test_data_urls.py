"""Every command that takes a data set takes its URL; a command that is new is asked for here."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from coke import cli
from coke.tools.datasets.ingest import ingest
from coke.tools.datasets.inspect import inspect
from coke.tools.datasets.verify import verify
from tests.support.command_line import fails, run
from tests.support.stripes import draw_stripes
from tests.support.web_server import WebServer

DATA_SETS = ("data", "probe_data", "test")  # parameters that name a data set
SMALL = [
    *("--preset", "demo", "--epochs", "1", "--batch-size", "6", "--set", "model.width=8"),
    *("--set", "data.view.size=16", "--set", "clustering.n_clusters=[2, 3]"),
    *("--loader", "pil", "--device", "cpu"),
]
BENCH = [option for option in SMALL if option not in ("--epochs", "1")]
EVALUATION = ["--no-baselines", "--device", "cpu"]

#: Arguments of each command, by its name: of the URL of the data set, a run folder, a new path.
ARGUMENTS: dict[str, Callable[[str, Path, Path], list[object]]] = {
    "verify": lambda url, trained, new: [url],
    "inspect": lambda url, trained, new: [url],
    "train": lambda url, trained, new: [
        url, "--out", new, "--probe-data", f"{url}/train", "--probe-every", "1", *SMALL,
    ],
    "bench-epoch": lambda url, trained, new: [url, "--seconds", "0.01", "--rounds", "1", *BENCH],
    "embed": lambda url, trained, new: [trained, url, new, "--device", "cpu"],
    "eval knn": lambda url, trained, new: [
        trained, f"{url}/train", "--test", f"{url}/test", *EVALUATION,
    ],
    "eval linear": lambda url, trained, new: [
        trained, url, "--fast", "--epochs", "1", *EVALUATION,
    ],
    "eval finetune": lambda url, trained, new: [
        trained, url, "--lr", "0.1", "--weight-decay", "0", "--epochs", "1", "--batch-size", "8",
        *EVALUATION,
    ],
    "eval lowshot": lambda url, trained, new: [
        trained, url, "--fraction", "0.5", "--seeds", "1", *EVALUATION,
    ],
    "eval clusters": lambda url, trained, new: [trained, url, *EVALUATION],
    "eval all": lambda url, trained, new: [trained, url, *EVALUATION],
    "report": lambda url, trained, new: [trained, url, "--out", new, "--no-umap"],
}  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    """All commands, by the words that call them."""

    def inside(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, sub in getattr(command, "commands", {}).items():
            yield from inside(sub, (*words, name))
        if not hasattr(command, "commands"):
            yield " ".join(words), command

    return inside(typer.main.get_command(cli.app), ())


def data_parameters(command: Any) -> set[str]:
    return {param.name for param in command.params} & set(DATA_SETS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("urls")
    draw_stripes(root / "src" / "train", 24, seed=0)
    draw_stripes(root / "src" / "test", 12, seed=1)
    ingest(root / "src", root / "data", workers=1, shard_size=10, console=Console(quiet=True))
    return root


@pytest.fixture
def url(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="http:// needs coke[http]")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    server = WebServer(folder)
    yield f"{server.url}/data"
    server.stop()


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        out = folder / "run"
        assert run(patch, "train", folder / "data", "--out", out, *SMALL) == 0
    return out


def test_every_command_with_a_data_set_is_tried_here() -> None:
    taking = {name for name, command in commands() if data_parameters(command)}
    assert taking == set(ARGUMENTS), "give the arguments of the command in ARGUMENTS"


def test_no_command_takes_a_data_set_as_a_path() -> None:
    """A path loses one of the slashes of ``http://``."""
    for name, command in commands():
        for param in command.params:
            if param.name in DATA_SETS:
                assert "Path" not in str(getattr(param, "type_descriptor", param)), name
                assert "path" not in str(getattr(param, "type", "")).lower(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_command_takes_a_url(
    name: str, url: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ARGUMENTS[name](url, trained, tmp_path / "new")
    assert run(monkeypatch, *name.split(), *given) == 0
    assert not any("http" in path.name for path in tmp_path.iterdir())


def test_tables_and_verdict_are_those_of_the_folder(url: str, folder: Path, tmp_path: Path) -> None:
    def shown(data: str) -> str:
        console = Console(record=True, width=100, file=io.StringIO())
        inspect(data, console=console)
        return console.export_text()

    def cells(data: str) -> list[str]:
        return [line for line in shown(data).splitlines() if "│" in line]

    assert cells(url) == cells(str(folder / "data")) and f"{url}/train" in shown(url)
    assert verify(url, console=Console(quiet=True)) == []
    assert not list((tmp_path / "cache").glob("verify-*"))


@pytest.mark.parametrize("name", ["verify", "inspect"])
def test_a_url_without_a_data_set_is_one_line(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing is no data set" in fails(monkeypatch, capsys, name, f"{url}/nothing", status=2)


@pytest.mark.parametrize("name", ["verify", "inspect"])
def test_a_user_without_a_home_folder_is_told_so(
    name: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for variable in ("COKE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    line = fails(monkeypatch, capsys, name, url, status=2)
    assert "cannot keep remote data in" in line and "--cache-dir" in line
    assert run(monkeypatch, name, url, f"--cache-dir={tmp_path / 'mine'}") == 0
