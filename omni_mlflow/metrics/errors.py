"""What metric functions raise instead of returning a number that means nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class NothingToScoreError(Exception):
    """There is no example to score. A report shows null with this reason, never 0."""


class UnpairedError(Exception):
    """Two sets of predictions cannot be compared: they do not answer the same samples."""


def or_none(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call ``function``; None where there is nothing to score."""
    try:
        return function(*args, **kwargs)
    except NothingToScoreError:
        return None
