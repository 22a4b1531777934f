"""Rows of a file that are parsed each time they are asked for: eight bytes of memory for each."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import TypeVar, overload

from pydantic import BaseModel, ValidationError

from omni_mlflow.spine.rows import BadRowError

ReadT = TypeVar("ReadT", bound=BaseModel)


class RowFile(Sequence[ReadT]):
    """Lines of a JSONL file that does not change while it is read, or some of them, in any order."""

    def __init__(self, path: Path, read: Callable[[bytes], ReadT], starts: Iterable[int]) -> None:
        """Name the rows by the bytes where they start; ``read`` parses one line."""
        self._path = path
        self._read = read
        self._starts = array("Q", starts)

    @classmethod
    def over(cls, path: Path, row_type: type[ReadT]) -> RowFile[ReadT]:
        """All lines of a file."""
        with path.open("rb") as lines:
            return RowFile(path, row_type.model_validate_json, _starts_of(lines))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> ReadT: ...
    @overload
    def __getitem__(self, place: slice) -> RowFile[ReadT]: ...
    def __getitem__(self, place: int | slice) -> ReadT | RowFile[ReadT]:
        """Parse one row, or choose some.

        Raises:
            BadRowError: naming the byte where a row starts that does not parse.
        """
        if isinstance(place, slice):
            return RowFile(self._path, self._read, self._starts[place])
        return self._at(self._starts[place])

    def __iter__(self) -> Iterator[ReadT]:
        return map(self._at, self._starts)

    def _at(self, start: int) -> ReadT:
        self._file.seek(start)
        try:
            return self._read(self._file.readline())
        except ValidationError as error:
            raise BadRowError(f"{self._path}: the row at byte {start} cannot be read: {error}") from error

    @cached_property
    def _file(self) -> BufferedReader:
        return self._path.open("rb")


def _starts_of(lines: Iterable[bytes]) -> Iterator[int]:
    start = 0
    for line in lines:
        yield start
        start += len(line)
