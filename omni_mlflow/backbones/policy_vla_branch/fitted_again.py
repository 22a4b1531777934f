"""Whether what was fitted on train is what the train samples give now, on whatever processor.

Eigenvectors and least squares end in other last bits where a processor adds up in another order. So numbers
are compared to within ``CLOSE``, and everything else (names, counts, ids, digests of ids) to the letter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

CLOSE = 1e-9
"""In the unit of a number (metres, radians, 1), and of its size where that is above one."""


def differing(found: BaseModel, expected: BaseModel, *, without: frozenset[str] = frozenset()) -> list[str]:
    """Name the fields of two models of one type that differ, in order.

    Args:
        without: fields that are not looked at.
    """
    names = [name for name in type(expected).model_fields if name not in without]
    return [name for name in names if not _is_close(getattr(found, name), getattr(expected, name))]


def _is_close(found: Any, expected: Any) -> bool:
    one, other = dict(_leaves(found)), dict(_leaves(expected))
    return one.keys() == other.keys() and all(_is_same(one[place], other[place]) for place in one)


def _is_same(found: Any, expected: Any) -> bool:
    if type(found) is float and type(expected) is float:
        both_unknown = math.isnan(found) and math.isnan(expected)
        return both_unknown or math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(found == expected)


def _leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield everything that holds nothing else, by where it stands, and how much each other thing holds."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, np.ndarray):
        yield (*place, "shape"), (value.shape, value.dtype.str)
        value = value.ravel().tolist()
    if isinstance(value, Mapping):
        yield (*place, "keys"), frozenset(value)
        for key, inner in value.items():
            yield from _leaves(inner, (*place, key))
    elif isinstance(value, list | tuple):
        yield (*place, "length"), len(value)
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*place, number))
    else:
        yield place, value
