"""How an estimate and a paired difference are written into ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, interval, sign_flip_p_value

_DIGITS = 9  # limits come out of matrix products, whose last bits differ between processors


def rounded(value: float) -> float:
    return round(value, _DIGITS)


def interval_row(estimate: EpisodeEstimate) -> dict[str, Any]:
    """The 95 % interval over episodes; null where there is only one of them, or no two of them differ and the
    range of the metric has no end: unseen ones may lie anywhere."""
    found = or_none(interval, estimate)
    method = found.method if found else None
    if found is None or not (isfinite(found.low) and isfinite(found.high)):
        return {"low": None, "high": None, "method": method}
    return {"low": rounded(found.low), "high": rounded(found.high), "method": method}


def difference_row(difference: EpisodeEstimate) -> dict[str, Any]:
    """A paired difference over the same samples, its interval and the sign-flip p-value."""
    p_value = rounded(sign_flip_p_value(difference))
    return {"value": rounded(difference.value), **interval_row(difference), "p_value": p_value}


def against(floors: Mapping[str, float], differences: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a metric is held against, and of it as ``best`` the floor that is hardest to beat.

    That is the one whose difference has the smallest lower limit: what lies clearly above it lies so above
    every other. Where a difference has no interval, nobody can tell that it lies above zero: it is harder
    than one that does. Without any interval it is the one with the smallest difference.

    Args:
        floors: value by name; the first of two that are equally hard is named.
        differences: as :func:`difference_row` writes them, above zero where the model is better.
    """
    if not floors:
        return {}
    has_limits = any(each["low"] is not None for each in differences.values())
    hardest = min(differences, key=lambda name: _hardness(differences[name], has_limits=has_limits))
    return {
        "floors": dict(floors),
        "best": hardest,
        "difference": differences[hardest],
        "differences": dict(differences),
    }


def _hardness(difference: Mapping[str, Any], *, has_limits: bool) -> tuple[float, float]:
    """What grows as a floor gets easier: the lower limit of the difference, then its value."""
    value: float = difference["value"]
    if difference["low"] is None:
        return (0.0, inf) if has_limits else (value, value)
    return (difference["low"], value)
