"""Rows that are made each time somebody asks for them: any number of them takes no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

MadeT = TypeVar("MadeT")


class MadeRows(Sequence[MadeT]):
    """Each row is made of those at its place in other sequences, and forgotten."""

    def __init__(self, make: Callable[..., MadeT], *of: Sequence[Any]) -> None:
        if len({len(each) for each in of}) != 1:
            raise ValueError(f"sequences of {[len(each) for each in of]} rows share no places")
        self._make = make
        self._of = of

    def __len__(self) -> int:
        return len(self._of[0])

    def __iter__(self) -> Iterator[MadeT]:
        return map(self._make, *self._of)

    @overload
    def __getitem__(self, place: int) -> MadeT: ...
    @overload
    def __getitem__(self, place: slice) -> MadeRows[MadeT]: ...
    def __getitem__(self, place: int | slice) -> MadeT | MadeRows[MadeT]:
        parts = [each[place] for each in self._of]
        return MadeRows(self._make, *parts) if isinstance(place, slice) else self._make(*parts)
