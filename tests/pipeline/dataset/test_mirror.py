"""Index files of a remote data set are fetched once, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.mirror import fetch_file, mirror_manifest
from coke.pipeline.remote.remote import Remote, WrongContent
from tests.support.web_server import WebServer


def test_index_files_are_fetched_once_and_checked(
    web: WebServer, shards: Path, tmp_path: Path
) -> None:
    remote, manifest = Remote(web.url), ImageIndex(shards).manifest
    folder = mirror_manifest(remote, tmp_path)
    assert mirror_manifest(remote, tmp_path) == folder
    for _ in range(2):
        path = fetch_file(remote, "index.npy", folder, manifest.index_sha256)
        assert path.read_bytes() == (shards / "index.npy").read_bytes()
    assert web.served["index.npy"] == 1
    web.answer = lambda name, count: "flip"
    with pytest.raises(WrongContent, match="keys.txt has SHA-256"):
        fetch_file(remote, "keys.txt", folder, manifest.keys_sha256)
    assert not (folder / "keys.txt").exists()


def test_another_data_set_at_the_url_is_another_folder(
    web: WebServer, shards: Path, tmp_path: Path
) -> None:
    remote = Remote(web.url)
    folder = mirror_manifest(remote, tmp_path)
    web.answer = lambda name, count: "flip"
    assert mirror_manifest(remote, tmp_path) != folder
