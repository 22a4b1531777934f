"""What shared code reads of ``metrics.json``, whichever backbone wrote it.

The keys are documented where a backbone's author looks for them: :class:`omni_mlflow.backbones.base.Scores`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omni_mlflow.spine.types import Check

HELD_OUT_EPISODE_COUNT = "held_out_episode_count"
"""The one primary metric that the shared stages count themselves; reports tell their own count."""

_WANTED = "a number, or null with a reason in more.reasons"
_WANTED_INTERVAL = "low and high around a metric's value, two numbers or two nulls"
_ROUNDING = 1e-6
_MISSING = "missing"


def number_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric's value, at the top of the file or in ``more``; None where that is no finite number."""
    return _number(_told(metrics, name))


def reasons_of(metrics: Mapping[str, Any]) -> Mapping[str, str]:
    """Why a metric is null, by its name."""
    reasons = _block(_block(metrics, "more"), "reasons")
    return {name: str(reason) for name, reason in reasons.items() if reason}


def metric_checks(metrics: Mapping[str, Any], *, primary: Iterable[str]) -> Iterator[Check]:
    """Every primary metric is a finite number, or null with a reason; every interval and floor is one."""
    reasons = reasons_of(metrics)
    for name in primary:
        value = _told(metrics, name)
        explained = value is None and name in reasons
        found = value if value == _MISSING else repr(value)
        yield _check("primary_metric", name, _WANTED, found, ok=explained or is_number(value))
    for name, row in _block(metrics, "intervals").items():
        found = repr(row) if (value := number_of(metrics, name)) is None else f"{row!r} of {value:g}"
        sound = _is_interval(row, value)
        yield _check("interval_of_a_metric", name, _WANTED_INTERVAL, found, ok=sound)
    for name, baseline in _block(metrics, "baselines").items():
        wanted = "floors, the best of them, and differences whose low and high lie around their value"
        yield _check("baseline_of_a_metric", name, wanted, repr(baseline), ok=_is_baseline(baseline))


def _is_interval(row: Any, value: float | None) -> bool:
    if not isinstance(row, Mapping) or value is None:
        return False
    low, high = (row.get(end, _MISSING) for end in ("low", "high"))
    if is_number(low) and is_number(high):
        slack = _ROUNDING * max(1.0, abs(value))
        return bool(low - slack <= value <= high + slack)
    return low is None and high is None


def _is_baseline(baseline: Any) -> bool:
    """As ``against`` of :mod:`omni_mlflow.metrics.score_rows` makes one, with rows of ``difference_row``."""
    if baseline is None:  # no floor can be had
        return True
    if not isinstance(baseline, Mapping):
        return False
    floors, differences = (_block(baseline, name) for name in ("floors", "differences"))
    rows = [*differences.values(), baseline.get("difference")]
    return (
        baseline.get("best") in floors
        and floors.keys() == differences.keys()
        and all(isinstance(row, Mapping) and _is_interval(row, _number(row.get("value"))) for row in rows)
    )


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _told(metrics: Mapping[str, Any], name: str) -> Any:
    return metrics.get(name, _block(metrics, "more").get(name, _MISSING))


def _block(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = metrics.get(name)
    return found if isinstance(found, Mapping) else {}


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=ok)
