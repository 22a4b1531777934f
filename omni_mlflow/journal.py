"""Append-only JSONL that survives ``kill -9``: the truth that tracking projects.

A row is one whole line, written by one writer. It is on the disk before anything else acts on it: the
writer waits for that, or whoever follows the journal does. A torn last line (the process died while
writing it) is moved to a file beside the journal and reported; it is never parsed and never loses the
rows before it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic_core import from_json

from omni_mlflow.locks import JournalBusyError
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Row

_LAST_BYTES = 64 * 1024
"""How much of a journal's end is read at first to find its last line."""


@dataclass(frozen=True)
class TornRow:
    """An unfinished last row: its process died while writing it, and it was moved out of its journal.

    Attributes:
        kept_in: the file beside the journal that it was appended to.
    """

    journal: Path
    num_bytes: int
    kept_in: Path

    def __str__(self) -> str:
        return (
            f"the last row of {self.journal.name} was left unfinished by a process that died; "
            f"its {self.num_bytes} bytes are kept in {self.kept_in}"
        )


class Mark(Row):
    """The first rows of a journal, as they were at one moment.

    Attributes:
        sha256: over the bytes of these rows.
    """

    num_rows: int
    sha256: str


class Journal:
    """The single writer of one journal file.

    Attributes:
        quarantined: the torn last row of an earlier process, if there was one; whoever opens the journal
            reports it.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending, creating it when absent.

        Raises:
            JournalBusyError: another process has it open.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise JournalBusyError(
                f"{path} is being written by another process; wait for it to end, or stop it first"
            ) from error
        try:
            self.quarantined = self._cut_torn_tail()
        except OSError:  # a disk without room for it
            os.close(self._file)
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Write ``row`` and return once it is on the disk."""
        self._write(row)
        os.fsync(self._file)

    def note(self, row: Mapping[str, Any]) -> None:
        """Write ``row`` without waiting for the disk: for frequent rows that can be made again.

        It survives the death of the process at once, and that of the machine after the next
        :meth:`append`, :meth:`close` or :func:`settle`.
        """
        self._write(row)

    def extend(self, rows: list[dict[str, Any]]) -> list[int]:
        """Write several rows with one fsync, and return where they start: rows only useful together."""
        starts = self._write(*rows)
        os.fsync(self._file)
        return starts

    def copy(self, lines: Sequence[bytes]) -> list[int]:
        """Write rows of another journal as they are, as :meth:`note` does, and return where they start."""
        return self._write_lines(lines)

    def rows(self) -> list[dict[str, Any]]:
        return list(read_journal(self.path))

    def mark(self) -> Mark:
        """Remember all rows that the journal holds now."""
        whole = self.path.read_bytes()
        return Mark(num_rows=whole.count(b"\n"), sha256=hashlib.sha256(whole).hexdigest())

    def holds(self, mark: Mark) -> bool:
        """Tell whether the journal still begins with the very rows of ``mark``."""
        return hashlib.sha256(self._first(mark.num_rows)).hexdigest() == mark.sha256

    def truncate_after(self, num_rows: int) -> None:
        """Keep the first ``num_rows`` rows: a resumed stage replays what came after its checkpoint."""
        os.ftruncate(self._file, len(self._first(num_rows)))
        os.fsync(self._file)

    def close(self) -> None:
        """Let another writer in. Closing twice does nothing."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, *rows: Mapping[str, Any]) -> list[int]:
        lines = (
            json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n" for row in rows
        )
        return self._write_lines([line.encode() for line in lines])

    def _write_lines(self, lines: Sequence[bytes]) -> list[int]:
        data = b"".join(lines)
        written = os.write(self._file, data)
        if written != len(data):  # a full disk writes part of a line; take it back, keep whole lines
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(28, "no space left on device", str(self.path))
        begin = os.fstat(self._file).st_size - written
        return list(accumulate((len(line) for line in lines[:-1]), initial=begin)) if lines else []

    def _first(self, num_rows: int) -> bytes:
        with self.path.open("rb") as lines:
            return b"".join(islice(lines, num_rows))

    def _cut_torn_tail(self) -> TornRow | None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole == len(data):
            return None
        torn = self.path.with_name(f"{self.path.name}.torn")
        with torn.open("ab") as out:
            out.write(data[whole:] + b"\n")
            out.flush()
            os.fsync(out.fileno())
        os.ftruncate(self._file, whole)
        os.fsync(self._file)
        return TornRow(self.path, num_bytes=len(data) - whole, kept_in=torn)


def settle(path: Path) -> None:
    """Wait until every row that was written to a journal is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def read_journal(path: Path, *, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a journal from byte ``start``; an unfinished last line is not yielded.

    Raises:
        BadRowError: a finished line is not a JSON object (the file was edited by hand).
    """
    return (row for row, _ in follow_journal(path, start=start))


def follow_journal(path: Path, *, start: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each whole line with the byte after it, which is where a later call goes on.

    Raises:
        BadRowError: as :func:`read_journal`.
    """
    with path.open("rb") as lines:
        yield from follow_open_journal(lines, start=start)


def last_row(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of a journal, read from its end; None where no line is whole.

    Raises:
        BadRowError: as :func:`read_journal`.
    """
    size = path.stat().st_size
    reach = _LAST_BYTES
    while size:
        start = max(0, size - reach)
        with path.open("rb") as lines:
            lines.seek(start)
            whole = lines.read(size - start).rpartition(b"\n")[0]
        before = whole.rfind(b"\n")
        if before >= 0 or start == 0:
            begins = start + before + 1
            return next((row for row, _ in follow_journal(path, start=begins)), None) if whole else None
        reach *= 8
    return None


def follow_open_journal(lines: BufferedReader, *, start: int) -> Iterator[tuple[dict[str, Any], int]]:
    """As :func:`follow_journal`, of one that stays the same file whatever becomes of its path."""
    end = start
    lines.seek(start)
    for line in lines:
        if not line.endswith(b"\n"):
            return
        if line.isspace():
            raise _bad_row(lines, at=end, why="a blank line")
        try:
            row = from_json(line)
        except ValueError as error:
            what = str(error).partition(" at line ")[0]  # it counts from this line on
            raise _bad_row(lines, at=end, why=f"not JSON ({what})") from error
        if not isinstance(row, dict):
            raise _bad_row(lines, at=end, why="not a JSON object")
        end += len(line)
        yield row, end


def _bad_row(lines: BufferedReader, *, at: int, why: str) -> BadRowError:
    lines.seek(0)
    number = lines.read(at).count(b"\n") + 1
    return BadRowError(
        f"{lines.name}:{number}: {why}; nothing writes such a row but a hand or a damaged disk: put the line "
        "back as it was, or move the file away"
    )
