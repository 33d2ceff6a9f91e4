"""Charts hold the figures they were given."""

from __future__ import annotations

from coke.tools.page import charts


def test_bars_reach_their_values_and_lines_their_ranges() -> None:
    series = {
        "alone": [charts.Bar(label="decode", value=20, low=18, high=25)],
        "in training": [
            charts.Bar(label="decode", value=30, low=30, high=30),
            charts.Bar(label="step", value=90, low=80, high=95),
        ],
    }
    figure = charts.bars(series, ["decode", "step"], unit="ms").figure
    alone, together = figure["data"]
    assert (alone["name"], alone["y"], alone["x"]) == ("alone", ["decode"], [20])
    assert (together["y"], together["x"]) == (["decode", "step"], [30, 90])
    assert alone["error_x"]["array"] == [5] and alone["error_x"]["arrayminus"] == [2]
    assert together["error_x"]["array"] == [0, 5]
    assert alone["marker"] != together["marker"]
    assert figure["layout"]["yaxis"]["categoryarray"] == ["decode", "step"]
    assert figure["layout"]["yaxis"]["autorange"] == "reversed", "the first row is on top"


def test_spans_start_and_end_where_they_did() -> None:
    spans = [
        charts.Span(row="step 1", name="wait", start=0, length=8),
        charts.Span(row="step 1", name="forward", start=8, length=32),
        charts.Span(row="step 2", name="wait", start=0, length=4),
    ]
    wait, forward = charts.timeline(spans, unit="ms").figure["data"]
    assert (wait["y"], wait["base"], wait["x"]) == (["step 1", "step 2"], [0, 0], [8, 4])
    assert (forward["y"], forward["base"], forward["x"]) == (["step 1"], [8], [32])


def test_a_histograms_bars_stand_between_its_edges() -> None:
    figure = charts.histogram(
        [0.5, 2.5, 4.5], [3, 7], x_title="points", y_title="clusters", marks=[("min 1", 0.5)]
    ).figure
    (bars,) = figure["data"]
    assert (bars["x"], bars["width"], bars["y"]) == ([1.5, 3.5], [2.0, 2.0], [3, 7])
    (line,) = figure["layout"]["shapes"]
    assert (line["x0"], line["x1"]) == (0.5, 0.5)
    assert [(a["text"], a["x"]) for a in figure["layout"]["annotations"]] == [("min 1", 0.5)]
