"""Runs `coke` within the test's process."""

from __future__ import annotations

import sys

import pytest

from coke import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs the command line in this process, 200 columns wide; returns its exit status."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["coke", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: object,
    status: int | None = None,
) -> str:
    """The one line of error of a command that must fail, with this status or any."""
    capsys.readouterr()
    found = run(monkeypatch, *arguments)
    captured = capsys.readouterr()
    assert found in ((1, 2) if status is None else (status,))
    assert "Traceback" not in captured.err + captured.out
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    return lines[0]
