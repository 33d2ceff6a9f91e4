"""Labels as they stand in text and in tables: numbers, or names of classes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

Label = int | str | None
_INTEGER = re.compile(r"-?[0-9]{1,18}")
# 3.0: pandas writes so what has gaps in its column; 1.5e+01: so does numpy.savetxt
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_COMMA = re.compile(r"-?[0-9]+,[0-9]+")  # 3,0 or 1,000: what it means depends on the country
_MOST_DIGITS = 15  # a float holds whole numbers of so many digits exactly
_GAPS = frozenset({"nan", "na", "<na>", "none", "null"})  # pandas', where labels are numbers


def labels_of_text(texts: Sequence[str | None], keys: Sequence[str]) -> list[Label]:
    """Labels as they stand in text: numbers if all of them are, otherwise class names.

    ``3.0`` and ``3e0`` are the number 3. Among numbers, ``nan`` and the like mean no label.

    Args:
        texts: one per image; None or blank = no label.
        keys: of the images, for messages.

    Raises:
        ValueError: some are numbers and some are not, or a number is not whole.
    """
    stripped = [None if text is None else text.strip() or None for text in texts]
    distinct = {text for text in stripped if text is not None}
    numbers = {text: number for text in distinct if (number := _number(text)) is not None}
    if not numbers:
        names = distinct - _gaps(distinct)
        if names and all(map(_is_number, names)):
            _refuse_number(stripped, names, keys)
        return list(stripped)
    names = distinct - numbers.keys() - _gaps(distinct)
    if any(map(_is_number, names)):
        _refuse_number(stripped, names, keys)
    if names:
        number = next(i for i, text in enumerate(stripped) if text in numbers)
        name = next(i for i, text in enumerate(stripped) if text in names)
        raise ValueError(
            f"the label of {keys[name]} is {stripped[name]!r} and that of {keys[number]} is "
            f"{stripped[number]}; labels are all numbers or all names"
        )
    return [None if text is None else numbers.get(text) for text in stripped]


def _number(text: str) -> int | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) > 40 or not _FLOAT.fullmatch(text):
        return None
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 10**_MOST_DIGITS else None


def _is_number(text: str) -> bool:
    return bool(_FLOAT.fullmatch(text) or _COMMA.fullmatch(text))


def _gaps(texts: set[str]) -> set[str]:
    return {text for text in texts if text.lower() in _GAPS}


def _refuse_number(texts: Sequence[str | None], among: set[str], keys: Sequence[str]) -> None:
    i = next(i for i, text in enumerate(texts) if text in among and _is_number(text or ""))
    raise ValueError(
        f"the label of {keys[i]} is {texts[i]}; a label is a whole number or a name, so name the "
        "classes, or choose labels 'none'"
    )


def plain_label(value: object, where: str) -> Label:
    """A label as a table's cell or a JSON file has it.

    Raises:
        ValueError: it is neither a whole number nor a name.
    """
    if isinstance(value, float) and (math.isnan(value) or value.is_integer()):
        return None if math.isnan(value) else int(value)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f"{where} has the label {value!r}; a label is a whole number or a name, so replace the "
        "labels by such, or choose labels 'none'"
    )
