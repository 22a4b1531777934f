"""Whether samples got the same answers in a batch and alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omni_mlflow.spine.types import Answer

TOLERANCE = 1e-5
"""Share of the greatest number of the same name, of all samples, by which a number may differ.

A batch adds up the same terms in another order: eight layers of 64 to 2048 units gave in 32 bits at most
1.4e-6 of it (a batch of 8 against each alone, on a CPU). A model that calculates in 16 bits may differ by
more, and is then named.
"""

_Path = tuple[str, ...]


def answered_otherwise(pairs: Sequence[tuple[Answer, Answer]]) -> list[str]:
    """Return the ids of the samples whose two answers differ: fractions by more than :data:`TOLERANCE`.

    Whole numbers, texts and all else differ as soon as they are not equal. One sample's number may lie at
    zero by chance, so what counts as great is taken from all of them.
    """
    greatest: dict[_Path, float] = {}
    for path, value in (each for pair in pairs for answer in pair for each in _fractions(answer.values)):
        greatest[path] = max(greatest.get(path, 0.0), abs(value))
    return [one.id for one, other in pairs if not _same_answers(one, other, greatest)]


def _same_answers(one: Answer, other: Answer, greatest: Mapping[_Path, float]) -> bool:
    rest = one.model_copy(update={"values": other.values})
    return rest == other and _same(one.values, other.values, (), greatest)


def _same(one: Any, other: Any, path: _Path, greatest: Mapping[_Path, float]) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            _same(one[name], other[name], (*path, str(name)), greatest) for name in one
        )
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(
            _same(*pair, path, greatest) for pair in zip(one, other, strict=True)
        )
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=0.0, abs_tol=TOLERANCE * greatest.get(path, 0.0))
    return bool(one == other)


def _fractions(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, float]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _fractions(each, (*path, str(name)))
    elif _is_list(value):
        for each in value:
            yield from _fractions(each, path)
    elif isinstance(value, float) and math.isfinite(value):
        yield path, value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
