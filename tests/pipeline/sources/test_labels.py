"""Labels as text: numbers, numbers that pandas wrote as floats, gaps, and names."""

from __future__ import annotations

import pytest

from coke.pipeline.sources.labels import labels_of_text


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["0.0", "1.0", "2.0", "10.0", "11.0", ""], [0, 1, 2, 10, 11, None]),
        (["3", " 1 \n", None, "-1", "2."], [3, 1, None, -1, 2]),
        (["1", "nan", "NaN", "<NA>", "None"], [1, None, None, None, None]),
        (["cat", "nan", "7-up"], ["cat", "nan", "7-up"]),
        (["nan", "NA"], ["nan", "NA"]),
        (["1e+00", "2.0e0", "+10", "1.000000000000000000e+01"], [1, 2, 10, 10]),
        (["1e0", "nan"], [1, None]),
        (["e10", "1e", "1,2,3", "a,b"], ["e10", "1e", "1,2,3", "a,b"]),
        (["v1.5", "1.5 m"], ["v1.5", "1.5 m"]),
        ([], []),
    ],
)
def test_texts(texts: list[str | None], labels: list[object]) -> None:
    assert labels_of_text(texts, [f"{i}.jpg" for i in range(len(texts))]) == labels


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1", "dog", ""], "the label of 1.jpg is 'dog' and that of 0.jpg is 1; labels are all"),
        (["1.0", "2.5"], "the label of 1.jpg is 2.5; a label is a whole number or a name"),
        (["1,0", "10,0", "2,0"], "the label of 0.jpg is 1,0; a label is a whole number or a name"),
        (["1", "2e-1"], "the label of 1.jpg is 2e-1; a label is a whole number or a name"),
        (["0.5", "nan", "0.25"], "the label of 0.jpg is 0.5; a label is a whole number or a name"),
    ],
)
def test_texts_that_are_refused(texts: list[str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labels_of_text(texts, [f"{i}.jpg" for i in range(len(texts))])
