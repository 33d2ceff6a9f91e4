"""Where remote data is kept: with and without a home folder that can be written."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from coke.pipeline.remote.cache_dir import cache_folder, default_cache_dir


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COKE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_default_is_in_the_users_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_cache_dir() == Path("/home/ada/.cache/coke")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")
    assert default_cache_dir() == Path("/home/ada/x/coke")
    monkeypatch.setenv("COKE_CACHE", "~/y")
    assert default_cache_dir() == Path("/home/ada/y")


def test_a_user_without_a_home_folder_is_told_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ValueError, match="no home folder .*set COKE_CACHE .* --cache-dir"):
        cache_folder()
    assert cache_folder(tmp_path / "a" / "b").is_dir()


def test_a_home_folder_that_cannot_be_written_is_told_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # as / is for a container's user
    with pytest.raises(ValueError, match="cannot keep remote data in .*: Not a dir.*--cache-dir"):
        cache_folder()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission; set COKE_CACHE"):
        cache_folder(tmp_path)
