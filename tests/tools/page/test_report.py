"""`coke report`: what is refused before work, and the page of a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from coke.config.config import Config
from coke.config.presets import presets
from coke.pipeline.sources.keys import to_system
from coke.tools.page import report
from coke.tools.page.report import report_run, run_page
from coke.tools.page.settings import settings_section
from tests.support.command_line import fails, run
from tests.support.made_run import head, made_run, record

pytest.importorskip("jinja2", reason="pages need coke[report]")
pytest.importorskip("plotly", reason="pages need coke[report]")
IMAGES = 1000
HOSTILE = "<script>alert(1) é 図"


def text_of(page: str) -> str:
    """The page without its scripts."""
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def folder(tmp_path: Path, name: str = "run", epochs: int = 3) -> Path:
    lines = [record(epoch, [head(10, IMAGES)], IMAGES) for epoch in range(epochs)]
    return made_run(tmp_path / name, Config(preset="custom"), lines, IMAGES)


def test_the_page_of_a_run_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    out = report_run(
        folder(tmp_path, to_system(HOSTILE)),
        out=tmp_path / "page.html",
        console=Console(quiet=True),
    )
    page = out.read_text(encoding="utf-8")
    text = text_of(page)
    for title in ("What to try next", "Evaluations", "Curves", "Settings"):
        assert f">{title}</a>" in text and re.search(rf'<h2 id="part-\d">{title}</h2>', text)
    assert "&lt;script&gt;alert(1) é 図: a training run" in text
    assert "<script>alert" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text) and "url(" not in text


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path, epochs: int) -> None:
    sections = {s.title: s for s in run_page(folder(tmp_path, epochs=epochs)).sections}
    assert sections["What to try next"].lines == ["No epoch of training has ended yet."]
    assert bool(sections["Curves"].charts) == (epochs > 0)


def test_settings_that_differ_from_the_preset_come_first() -> None:
    config = presets["demo"].changed(optimizer={"lr": 9.5}, clustering={"n_clusters": (7, 8)})
    changed, everything = settings_section(config).tables
    assert [row[:2] for row in changed.rows] == [
        ("optimizer.lr", "9.5"),
        ("clustering.n_clusters", "[7, 8]"),
    ]
    assert changed.rows[0][2] == str(presets["demo"].optimizer.lr)
    assert ("data.view.flip_p", "0.5") in everything.rows
    (line,) = settings_section(presets["demo"]).lines
    assert line == "The settings are those of the preset demo."
    assert "no preset" in settings_section(Config()).note


def test_out_is_checked_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = folder(tmp_path), tmp_path / "page.html"
    assert run(monkeypatch, "report", made, "--out", out) == 0
    assert f"{out}: 4." in capsys.readouterr().out
    before = out.read_bytes()
    for bad, says in (
        (out, "exists; give --overwrite"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "page.html", "does not exist; make it first"),
    ):
        assert says in fails(monkeypatch, capsys, "report", made, "--out", bad, status=2)
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    other = tmp_path / "other.html"
    assert "cannot be written" in fails(
        monkeypatch, capsys, "report", made, "--out", other, status=2
    )
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_page", full)
    line = fails(monkeypatch, capsys, "report", made, "--out", other, status=2)
    assert "cannot be written (No space left on device); choose another place" in line
    assert out.read_bytes() == before and not other.exists()
    monkeypatch.undo()
    assert run(monkeypatch, "report", made, "--out", out, "--overwrite") == 0


def test_what_is_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    line = fails(monkeypatch, capsys, "report", tmp_path, "--out", out, status=2)
    assert "is neither a run of `coke train`" in line and not out.exists()


def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = folder(tmp_path)
    monkeypatch.setattr("coke.tools.page.render.find_spec", lambda name: None)
    line = fails(monkeypatch, capsys, "report", made, "--out", tmp_path / "p.html", status=2)
    assert "pip install 'coke[report]'" in line
