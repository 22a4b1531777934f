"""Whether a sample got the same answer in a batch and alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omni_mlflow.spine.types import Answer

TOLERANCE = 1e-5
"""Share of the greatest number of the same name by which a number may differ.

A batch adds up the same terms in another order: eight layers of 64 to 2048 units gave in 32 bits at most
1.4e-6 of it (a batch of 8 against each alone, on a CPU). A model that calculates in 16 bits may differ by
more, and is then named.
"""


def same_answers(one: Answer, other: Answer) -> bool:
    """Numbers within :data:`TOLERANCE`; whole numbers, texts and all else exactly."""
    rest = one.model_copy(update={"values": other.values})
    return rest == other and _same(one.values, other.values)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    first, second = _numbers(one), _numbers(other)
    if first is None or second is None:
        return bool(one == other)
    if first.shape != second.shape:
        return False
    finite = [np.abs(array[np.isfinite(array)]) for array in (first, second)]
    greatest = max((float(array.max()) for array in finite if array.size), default=0.0)
    return np.allclose(first, second, rtol=0.0, atol=TOLERANCE * greatest, equal_nan=True)


def _numbers(values: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Nested lists as an array; None where they are ragged or hold something else than fractions."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind == "f" else None
