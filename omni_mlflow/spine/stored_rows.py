"""Rows that are dear to make: made once, they lie in a temporary file; each takes eight bytes of memory."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import TypeVar, overload

StoredT = TypeVar("StoredT")


class StoredRows(Sequence[StoredT]):
    """Plain objects, read again as often as somebody asks for them; each time it is another copy."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - it lives as long as the rows
        self._starts = array("Q")

    def append(self, row: StoredT) -> None:
        """Store one more row; all of them are stored before the first is read."""
        self._starts.append(self._file.tell())
        pickle.dump(row, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> StoredT: ...
    @overload
    def __getitem__(self, place: slice) -> list[StoredT]: ...
    def __getitem__(self, place: int | slice) -> StoredT | list[StoredT]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        self._file.seek(self._starts[place])
        row: StoredT = pickle.load(self._file)
        return row
