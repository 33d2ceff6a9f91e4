"""``coke export``: the files that it leaves, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.tools.export.card import MARKER
from coke.tools.export.formats import FORMATS
from coke.tools.export.formats.format import Format
from coke.tools.export.settings import ExportSettings
from coke.tools.export.trained_network import TrainedNetwork, open_network
from tests.support.command_line import fails, run
from tests.support.saved_run import saved_run
from tests.support.tiny_config import tiny_config

PLAIN = ("--format", "plain")


class Plain(Format):
    """A format that takes no time."""

    name = "plain"
    suffixes = (".plain", ".txt")

    def check(self, network: TrainedNetwork, settings: ExportSettings) -> None:
        pass

    def contents(
        self, network: TrainedNetwork, settings: ExportSettings, name: str
    ) -> dict[str, bytes]:
        return {name: b"x" * 2048}

    def loading(self, network: TrainedNetwork, settings: ExportSettings, name: str) -> str:
        return f"net = {name!r}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny network."""
    return saved_run(tmp_path_factory.mktemp("runs") / "run", tiny_config())


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "plain", Plain())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_card(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "export", trained, tmp_path / "a" / "net.plain", *PLAIN) == 0
    assert names(tmp_path / "a") == ["net.plain", "net.plain.md"]
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'a' / 'net.plain'}  2 KiB" in shown
    assert MARKER in (tmp_path / "a" / "net.plain.md").read_text(encoding="utf-8")


def test_only_an_export_is_replaced(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, card = tmp_path / "net.plain", tmp_path / "net.plain.md"
    command = ("export", trained, out, *PLAIN)
    out.write_text("mine", encoding="utf-8")
    assert "net.plain exists; add --overwrite" in fails(monkeypatch, capsys, *command, status=2)
    line = fails(monkeypatch, capsys, *command, "--overwrite", status=2)
    assert "has no model card net.plain.md of an export beside it, so --overwrite does not" in line
    assert out.read_text(encoding="utf-8") == "mine" and names(tmp_path) == ["net.plain"]
    out.unlink()
    card.write_text("mine", encoding="utf-8")
    line = fails(monkeypatch, capsys, *command, status=2)
    assert "net.plain.md exists, where the model card would be" in line
    card.unlink()
    assert run(monkeypatch, *command) == 0
    out.write_bytes(b"old")
    assert run(monkeypatch, *command, "--overwrite") == 0
    assert out.stat().st_size == 2048 and names(tmp_path) == ["net.plain", "net.plain.md"]


def test_what_is_refused(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "features.npy").touch()
    (tmp_path / "file").touch()
    before = names(tmp_path)
    out = tmp_path / "net.plain"
    for run_folder, place, options, message in (
        (tmp_path / "none", out, PLAIN, "none is no training run"),
        (tmp_path / "other", out, PLAIN, "other is no training run"),
        (trained, out, ("--format", "caffe"), f"'caffe'; choose one of {', '.join(FORMATS)}"),
        (trained, tmp_path / "net.h5", PLAIN, "net.h5 ends in no suffix of --format"),
        (trained, tmp_path / "net.h5", PLAIN, "give a name such as net.plain"),
        (trained, tmp_path / "net", PLAIN, "give a name such as net.plain"),
        (trained, tmp_path / "file" / "net.plain", PLAIN, "cannot write"),
        (trained, out, (*PLAIN, "--epoch", 7), "keeps no checkpoint of epoch 7"),
    ):
        command = ("export", run_folder, place, *options)
        assert message in fails(monkeypatch, capsys, *command, status=2)
        assert names(tmp_path) == before


def test_a_disk_that_is_full_leaves_nothing(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    line = fails(monkeypatch, capsys, "export", trained, tmp_path / "net.plain", *PLAIN, status=2)
    assert "net.plain: No space left on device" in line
    assert names(tmp_path) == []


def test_every_format_says_how_to_load_it(trained: Path) -> None:
    network = open_network(trained)
    for name, form in FORMATS.items():
        code = form.loading(network, ExportSettings(format=name), "NAME")
        compile(code, name, "exec")
        assert "'NAME'" in code and "net = " in code
        assert bool(form.suffixes) != bool(form.files)
