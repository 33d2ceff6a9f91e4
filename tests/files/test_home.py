"""``~`` in paths."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from coke.files.home import expanded


def test_a_tilde_at_the_start_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert expanded("~") == Path("/home/ada")
    assert expanded("~/x y") == expanded(Path("~/x y")) == Path("/home/ada/x y")
    for path in ("a/~/b", "./~", "~no-such-user/x", "a~"):
        assert expanded(path) == Path(path)


def test_without_a_home_folder_no_folder_called_tilde_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ValueError, match=r"~/x cannot be expanded: this user has no home folder"):
        expanded("~/x")
    assert expanded("/x") == Path("/x")
