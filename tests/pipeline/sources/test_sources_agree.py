"""The same collection in every layout: equal keys, labels and bytes; sniffed, forced, in pieces."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from benchmarks.sources import LAYOUTS, Layout, Picture, as_validation, synthetic, wnids
from coke.pipeline.sources import SOURCES, Source, find_splits

PICTURES = synthetic(23)


def written(layout: Layout, root: Path) -> tuple[Path, list[Picture]]:
    pytest.importorskip(layout.needs, reason="the layout needs an optional package")
    pictures = as_validation(PICTURES) if layout.validation else PICTURES
    return layout.write(root, pictures), pictures


def only(found: dict[str, Source]) -> Source:
    assert list(found) == [""]
    return found[""]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_says_the_same(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    src, pictures = written(layout, tmp_path)
    source = only(find_splits(src, labels=layout.labels))
    assert source.keys == tuple(picture.key for picture in pictures)
    classes = wnids(pictures)
    assert source.labels == tuple(classes.index(picture.wnid) for picture in pictures)
    assert len(source.classes) == len(classes)
    if name != "WebDataset, .cls":  # which has numbers alone
        assert source.classes == tuple(classes)
    assert [source.read(i) for i in range(len(source))] == [p.data for p in pictures]

    assert only(find_splits(src, labels=layout.labels, source=layout.source)).keys == source.keys
    unlabelled = only(find_splits(src, labels="none"))
    assert unlabelled.keys == source.keys and unlabelled.classes == ()
    assert set(unlabelled.labels) == {-1}

    positions = [20, 3, 4, 22]
    piece = pickle.loads(pickle.dumps(source.take(positions)))
    assert len(pickle.dumps(source.take([7]))) < 1500  # no baggage of the whole collection
    assert piece.keys == tuple(source.keys[i] for i in positions)
    assert piece.labels == tuple(source.labels[i] for i in positions)
    assert [piece.read(i) for i in range(4)] == [pictures[i].data for i in positions]
    assert [piece.describe(i) for i in range(4)] == [source.describe(i) for i in positions]
    assert piece.take([1]).read(0) == pictures[3].data

    held = Path(source.images.path(3))
    stamp = source.stamp(3)
    assert stamp == piece.stamp(1) and Path(source.origin).exists()
    os.utime(held, ns=(1, 1))
    assert source.stamp(3) != stamp
    held.unlink()
    assert source.stamp(3) == ""


WRONG = {
    "arrow": r"no \.arrow files in|cannot be read .*download it again|needs the package pyarrow",
    "cifar": "no batches of CIFAR in",
    "folders": "no images in|needs the folder",
    "idx": "no IDX files in|needs the folder",
    "imagenet": "no ImageNet tars in|truncated or damaged",
    "parquet": r"no \.parquet files in|is damaged .*download it again|needs the package pyarrow",
    "wds": r"no \.tar files in|truncated or damaged",
    "table": r"no \.csv or \.tsv file in|none is called path|no UTF-8 text|nothing else",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_wrong_source_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    src, _ = written(layout, tmp_path)
    assert set(WRONG) == set(SOURCES) - {"auto"}
    for wrong in set(WRONG) - {layout.source}:
        if (layout.source, wrong) == ("imagenet", "wds"):
            continue  # a tar of tars has no images, but the others are tars of images
        with pytest.raises(ValueError, match=WRONG[wrong]) as error:
            find_splits(src, source=wrong)
        assert str(src) in str(error.value)
