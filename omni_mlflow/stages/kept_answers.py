"""Where the answers of an evaluation lie: they are read from their journals when they are asked for.

Journals are held open from the moment they are looked through: what was found in a file is read from that
very file, though its folder may have been moved away and begun anew meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from io import BufferedReader
from itertools import product
from pathlib import Path
from sys import intern
from typing import Any

from pydantic_core import from_json

from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Answer, Outcome

Key = tuple[str, str]
"""The pass (``intact`` or a control) and the sample's id."""

_FILES = 1 << 16
_NOWHERE = -1


def answer_in(line: bytes) -> Answer:
    """Read a row of a journal of answers, its first row aside."""
    answer = Answer.model_validate_json(line)
    (answer.model_extra or {}).pop("pass", None)
    return answer


def is_given(answer: Answer | None) -> bool:
    """Tell whether the model was heard, whatever it said."""
    return answer is not None and answer.outcome is not Outcome.INFRASTRUCTURE_FAILED


class KeptAnswers:
    """The last word on each sample in each pass, in some journals; of each, eight bytes are held.

    Attributes:
        failed: keys of those that a failure of ours left without an answer.
    """

    def __init__(self) -> None:
        self.failed: set[Key] = set()
        self._files: list[BufferedReader] = []
        self._number_of: dict[BufferedReader, int] = {}
        self._numbers: dict[str, int] = {}  # of the samples, by id
        self._places: dict[str, array[int]] = {}  # by pass and number: byte and number of the file, as one

    def put(self, key: Key, file: BufferedReader, start: int, *, given: bool) -> None:
        """Remember where the last word on a sample starts, and whether it is an answer."""
        if file not in self._number_of:
            self._number_of[file] = len(self._files)
            self._files.append(file)
        number = self._number_of[file]
        sample = self._numbers.setdefault(intern(key[1]), len(self._numbers))
        places = self._places.setdefault(key[0], array("q"))
        places.extend([_NOWHERE] * (sample + 1 - len(places)))
        places[sample] = start * _FILES + number
        (self.failed.discard if given else self.failed.add)(key)

    def put_row(self, file: BufferedReader, start: int, row: Mapping[str, Any]) -> None:
        given = row["outcome"] != Outcome.INFRASTRUCTURE_FAILED
        self.put(_key_of(row), file, start, given=given)

    def add_missing(self, other: KeptAnswers) -> None:
        """Remember of ``other`` what is not given here."""
        for name, each in product(other._places, other._numbers):
            key = (name, each)
            if key in other and not self.is_given(key):
                start, number = divmod(other._place(key), _FILES)
                self.put(key, other._files[number], start, given=other.is_given(key))

    def __contains__(self, key: Key) -> bool:
        return self._place(key) != _NOWHERE

    def is_given(self, key: Key) -> bool:
        """Tell whether the model was heard, whatever it said."""
        return key in self and key not in self.failed

    def line(self, key: Key) -> bytes:
        """Return the row of an answer as its journal holds it.

        Raises:
            KeyError: there is none.
            BadRowError: the journal was rewritten since: another row stands there, or none.
        """
        place = self._place(key)
        if place == _NOWHERE:
            raise KeyError(key)
        start, number = divmod(place, _FILES)
        file = self._files[number]
        file.seek(start)
        line = file.readline()
        if _answered_by(line) != key:
            raise BadRowError(
                f"{file.name}: the answer ({key[0]}) to {key[1]} no longer stands at byte {start}; somebody "
                "rewrote this journal while it was read, so run the command again"
            )
        return line

    def __getitem__(self, key: Key) -> Answer:
        return answer_in(self.line(key))

    def of_one_journal(self, path: Path, name: str, ids: Iterable[str]) -> Sequence[Answer]:
        """Return the answers of one pass in the order of ``ids``; all of them lie in ``path``."""
        return RowFile(path, answer_in, (self._place((name, each)) // _FILES for each in ids))

    def _place(self, key: Key) -> int:
        sample, places = self._numbers.get(key[1], -1), self._places.get(key[0], ())
        return places[sample] if 0 <= sample < len(places) else _NOWHERE


def _key_of(row: Mapping[str, Any]) -> Key:
    return str(row["pass"]), str(row["id"])


def _answered_by(line: bytes) -> Key | None:
    """Tell whose answer a row is; None where it is no whole row."""
    try:
        return _key_of(from_json(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None
