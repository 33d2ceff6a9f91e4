"""The tables of docs/quality.md, from the records.

The page has a pair of comments around each table, ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.quality.grid import COUPLINGS, FORMS, METHODS, OPTIONS, RATIOS, SEARCH, Method
from benchmarks.quality.record import PROTOCOLS, Record, difference, mean_and_spread

_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: By the name in the page: its methods, and the one that the others are compared with.
TABLES: dict[str, tuple[Mapping[str, Method], str]] = {
    "forms": ({**FORMS, "instance-0.5": OPTIONS["instance-0.5"]}, "simclr"),
    "ratios": ({"one-view": FORMS["one-view"], **RATIOS}, "one-view"),
    "couplings": ({"one-view": FORMS["one-view"], **COUPLINGS}, "one-view"),
    "options": ({"two-five": FORMS["two-five"], **OPTIONS}, "two-five"),
    "search": (
        {"simclr": FORMS["simclr"], "two-five": FORMS["two-five"], **SEARCH},
        "simclr",
    ),
}


def with_tables(
    page: str, records: Sequence[Record], steps: Mapping[str, Any], *, images: int, epochs: int
) -> str:
    """The page with its tables written anew from the records of one number of images and epochs.

    Raises:
        ValueError: the page asks for a table that there is none of.
    """
    used = [record for record in records if (record.images, record.epochs) == (images, epochs)]

    def table(found: re.Match[str]) -> str:
        name = found[2]
        if name == "steps":
            lines = _steps(steps)
        elif name in TABLES:
            lines = _compared(*TABLES[name], used, steps)
        else:
            raise ValueError(
                f"the page asks for a table {name!r}; there are steps, {', '.join(TABLES)}"
            )
        return found[1] + "\n".join(lines) + "\n" + found[3]

    return _TABLE.sub(table, page)


def _compared(
    methods: Mapping[str, Method], base: str, records: Iterable[Record], steps: Mapping[str, Any]
) -> list[str]:
    """A row for each method with records, and its differences from the method ``base``."""
    by_method: dict[str, list[Record]] = {name: [] for name in methods}
    for record in records:
        if record.method in by_method:
            by_method[record.method].append(record)
    missing = [METHODS[name].title for name, found in by_method.items() if not found]
    expected = all(method.expected for name, method in methods.items() if name != base)
    head = ["method", *(["expected"] if expected else []), "views", "compute", "CPU min", "seeds"]
    head += ["k-NN", "linear", *(f"{p} − {METHODS[base].title}" for p in ("k-NN", "linear"))]
    lines = [_row(head), _row(["---", *(["---"] if expected else []), *["---:"] * 8])]
    for name, found in by_method.items():
        if not found:
            continue
        cells = [METHODS[name].title, *([METHODS[name].expected] if expected else [])]
        cells += [str(found[0].views), _compute(found[0], base, steps)]
        cells += [_minutes(found), ", ".join(str(record.seed) for record in found)]
        cells += [mean_and_spread([getattr(r, p) for r in found]) for p in PROTOCOLS]
        gaps = [difference(found, by_method[base], p) if name != base else None for p in PROTOCOLS]
        cells += ["–" if gap is None else str(gap) for gap in gaps]
        lines.append(_row(cells))
    if not any(by_method.values()):
        return ["No records yet."]
    found = [record for records in by_method.values() for record in records]
    when = sorted({(record.date, record.cpu) for record in found})
    lines += ["", "Trained: " + "; ".join(f"{date}, {cpu}" for date, cpu in when) + "."]
    if missing:
        lines[-1] += f" No records yet: {'; '.join(missing)}."
    return lines


def _compute(record: Record, base: str, steps: Mapping[str, Any]) -> str:
    """Steps times seconds of a step, as a multiple of those of the method it is compared with."""
    seconds = steps.get("seconds", {})
    if record.method not in seconds or base not in seconds:
        return "–"
    own, other = (2 if METHODS[name].twice else 1 for name in (record.method, base))
    return f"{own * seconds[record.method] / (other * seconds[base]):.2f}"


def _minutes(records: Sequence[Record]) -> str:
    """The mean of those that were trained in one go."""
    seconds = [record.cpu_seconds for record in records if record.cpu_seconds]
    return f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "–"


def _steps(steps: Mapping[str, Any]) -> list[str]:
    if not steps:
        return ["Not measured yet."]
    lines = [_row(["method", "CPU seconds of a step"]), _row(["---", "---:"])]
    lines += [_row([METHODS[name].title, f"{s:.3f}"]) for name, s in steps["seconds"].items()]
    when = f"Medians of {steps['rounds']} rounds, in turns: {steps['date']}, {steps['cpu']}."
    return [*lines, "", when]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
