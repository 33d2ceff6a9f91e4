"""The page of cluster sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coke.clustering.sizes import SizeBounds
from coke.tools.page.clusters import bins_of, sizes_page, write_sizes_page

pytest.importorskip("jinja2", reason="pages need coke[report]")
pytest.importorskip("plotly", reason="pages need coke[report]")


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [
        ([5, 5, 6, 9], SizeBounds(lower=5)),
        ([7], SizeBounds(lower=7, upper=7)),
        ([0, 1, 100_000], SizeBounds(lower=0)),
        (list(range(200, 1200)), SizeBounds(lower=200, upper=1300)),
    ],
)
def test_every_cluster_is_in_one_bin(sizes: list[int], bounds: SizeBounds) -> None:
    edges, counts = bins_of(np.array(sizes), bounds)
    assert counts.sum() == len(sizes)
    assert len(edges) == len(counts) + 1 <= 60
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(left < size < right for size in sizes)
    if bounds.lower > 0:
        assert bounds.lower - 0.5 in edges, "no bar reaches across the bound"
    if not math.isinf(bounds.upper):
        assert edges[0] < bounds.upper < edges[-1]


def test_by_hand() -> None:
    edges, counts = bins_of(np.array([5, 5, 6, 9]), SizeBounds(lower=5))
    assert edges.tolist() == [3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5]
    assert counts.tolist() == [0, 2, 1, 0, 0, 1, 0]


def chart(sizes: list[int], bounds: SizeBounds) -> dict[str, Any]:
    (section,) = sizes_page(np.array(sizes), bounds).sections
    return {**section.charts[0].figure}


def test_every_bound_has_a_line_outside_of_the_allowed_bars() -> None:
    figure = chart([20, 24, 24, 31], SizeBounds(lower=20, upper=35))
    assert [line["x0"] for line in figure["layout"]["shapes"]] == [19.5, 35.5]
    (bars,) = figure["data"]
    assert sum(bars["y"]) == 4
    drawn = [x for x, count in zip(bars["x"], bars["y"], strict=True) if count]
    assert min(drawn) > 19.5 and max(drawn) < 35.5


def test_without_bounds_there_are_no_lines() -> None:
    plain = chart([3, 4, 5], SizeBounds(lower=0))
    far = chart([3, 4, 5], SizeBounds(lower=0, upper=1_000_000))
    assert plain["layout"]["shapes"] == far["layout"]["shapes"] == []
    assert plain["data"] == far["data"], "a bound far away would squeeze the bars"


def test_the_words_say_what_was_asked_and_what_came() -> None:
    (section,) = sizes_page(np.array([3, 4, 8]), SizeBounds(lower=3, upper=9)).sections
    assert section.lines == [
        "Smallest 3, median 4, largest 8 points.",
        "Asked for: at least 3 and at most 9.",
    ]


def test_the_page_is_made_of_what_was_written(tmp_path: Path) -> None:
    np.save(tmp_path / "sizes.npy", np.array([2, 3]))
    about = {"min_size": 2, "max_size": None}
    (tmp_path / "summary.json").write_text(json.dumps(about), encoding="utf-8")
    text = write_sizes_page(tmp_path).read_text(encoding="utf-8")
    assert "Sizes of 2 clusters of 5 points" in text and "at least 2" in text
