"""Pieces of work: what another machine may see of the files, and what is kept in the journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coke.files import journal
from coke.pipeline.images.settings import StorageSettings
from coke.pipeline.sources import Source, find_splits
from coke.tools.datasets.ingest_checks import Checked, CheckTask, check_images


@pytest.fixture
def task(tmp_path: Path) -> CheckTask:
    """Three images, the second of which is none."""
    src = tmp_path / "src"
    src.mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 9 + i, 3), 40 * i, np.uint8)).save(src / f"{i}.jpg")
    (src / "1.jpg").write_bytes(b"text")
    return CheckTask(
        source=find_splits(src)[""],
        check="decode",
        hash_all=True,
        settings=StorageSettings(),
        entry=tmp_path / "checked.done",
        must_exist=(src,),
    )


def test_verdicts_come_back_from_the_journal(task: CheckTask) -> None:
    first, second = check_images(task), check_images(task)
    assert (first.resumed, second.resumed) == (0, 3)
    assert first.problems == second.problems == {1: "not an image"}
    assert first.verdicts.tobytes() == second.verdicts.tobytes()
    assert second.verdicts["width"].tolist() == [9, 0, 11]
    assert second.candidate(2) == first.candidate(2)
    joined = Checked.joined([first, second])
    assert joined.problems == {1: "not an image", 4: "not an image"} and joined.resumed == 3


def test_an_entry_that_is_damaged_or_of_other_files_is_none(task: CheckTask) -> None:
    check_images(task)
    whole = task.entry.read_bytes()
    for damaged in (b"", whole[:50], whole[:-1], whole[:-1] + b"\xff", b"{}\n"):
        task.entry.write_bytes(damaged)
        assert check_images(task).resumed == 0
    assert journal.load(task.entry, "something else") is None
    path = Path(task.source.describe(0))
    path.write_bytes(path.read_bytes() + b"\0")
    assert check_images(task).resumed == 0


def test_a_machine_that_does_not_see_the_files_says_so(task: CheckTask) -> None:
    missing = replace(task, must_exist=(Path("/nowhere/src"),))
    with pytest.raises(ValueError, match="/nowhere/src does not exist on .*same path"):
        check_images(missing)


def test_a_storage_that_does_not_answer_stops_it(
    task: CheckTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: Source, i: int) -> bytes:
        raise ConnectionError("timed out")

    monkeypatch.setattr(Source, "read", unreachable)
    with pytest.raises(ValueError, match=r"0\.jpg cannot be read: timed out; run the same"):
        check_images(task)
    assert not task.entry.exists()
