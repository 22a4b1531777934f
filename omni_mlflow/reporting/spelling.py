"""How pages and sentences spell numbers, differences and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "–"


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference; three zeros carry no sign."""
    if value is None:
        return NOTHING
    return f"{value:+.3f}" if f"{abs(value):.3f}" != "0.000" else "0.000"


def within(value: str, interval: Mapping[str, Any] | None) -> str:
    """A number in a sentence, with its limits where it has some."""
    limits = bounds(interval)
    return value if limits == NOTHING else f"{value} {limits}"


def bounds(interval: Mapping[str, Any] | None) -> str:
    if not interval or interval["low"] is None:
        return NOTHING
    low, high = (f"{interval[end]:.3f}".replace("-0.000", "0.000") for end in ("low", "high"))
    return f"[{low}, {high}]"
