"""How a measured figure is written: its median, and how far its rounds are apart."""

from __future__ import annotations

from coke.tools.bench.timing import Spread

_ONE_ROUND = "–"  # which says nothing of how far others would be


def median(spread: Spread | None, digits: int) -> str:
    """Empty where nothing was measured; without decimals from 100 on."""
    return "" if spread is None else f"{spread.median:,.{_shown(spread, digits)}f}"


def spread_range(spread: Spread | None, digits: int) -> str:
    """From the smallest to the largest round."""
    if spread is None:
        return ""
    if spread.rounds == 1:
        return _ONE_ROUND
    digits = _shown(spread, digits)
    return f"{spread.low:,.{digits}f}-{spread.high:,.{digits}f}"


def with_share(spread: Spread | None, digits: int) -> str:
    """The median, and half of the range as a share of it."""
    if spread is None:
        return ""
    share = (spread.high - spread.low) / 2 / spread.median
    return f"{median(spread, digits)} {_ONE_ROUND if spread.rounds == 1 else f'±{share:.0%}'}"


def _shown(spread: Spread, digits: int) -> int:
    return 0 if spread.median >= 100 else digits
