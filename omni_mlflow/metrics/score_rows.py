"""How an estimate and a paired difference are written into ``metrics.json``."""

from __future__ import annotations

from typing import Any

from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, interval, sign_flip_p_value

_DIGITS = 9  # limits come out of matrix products, whose last bits differ between processors


def rounded(value: float) -> float:
    return round(value, _DIGITS)


def interval_row(estimate: EpisodeEstimate) -> dict[str, Any]:
    """The 95 % interval over episodes; null where there is only one of them."""
    found = or_none(interval, estimate)
    if found is None:
        return {"low": None, "high": None, "method": None}
    return {"low": rounded(found.low), "high": rounded(found.high), "method": found.method}


def difference_row(difference: EpisodeEstimate) -> dict[str, Any]:
    """A paired difference over the same samples, its interval and the exact sign-flip p-value."""
    p_value = rounded(sign_flip_p_value(difference))
    return {"value": rounded(difference.value), **interval_row(difference), "p_value": p_value}
