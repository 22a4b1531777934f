"""Where the answers of an evaluation lie: they are read from their journals when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from sys import intern
from typing import Any

from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.types import Answer, Outcome

Key = tuple[str, str]
"""The pass (``intact`` or a control) and the sample's id."""

_FILES = 1 << 16


def answer_in(line: bytes) -> Answer:
    """Read a row of a journal of answers, its first row aside."""
    answer = Answer.model_validate_json(line)
    (answer.model_extra or {}).pop("pass", None)
    return answer


def is_given(answer: Answer | None) -> bool:
    """Tell whether the model was heard, whatever it said."""
    return answer is not None and answer.outcome is not Outcome.INFRASTRUCTURE_FAILED


class KeptAnswers:
    """The last word on each sample in each pass, in some journals; no answer itself is held.

    Attributes:
        failed: keys of those that a failure of ours left without an answer.
    """

    def __init__(self) -> None:
        self.failed: set[Key] = set()
        self._files: dict[Path, int] = {}
        self._open: dict[int, BufferedReader] = {}
        self._places: dict[str, dict[str, int]] = {}  # by pass and id: byte and number of the file, as one

    def put(self, key: Key, path: Path, start: int, *, given: bool) -> None:
        """Remember where the last word on a sample starts, and whether it is an answer."""
        number = self._files.setdefault(path, len(self._files))
        self._places.setdefault(key[0], {})[intern(key[1])] = start * _FILES + number
        (self.failed.discard if given else self.failed.add)(key)

    def put_row(self, path: Path, start: int, row: Mapping[str, Any]) -> None:
        given = row["outcome"] != Outcome.INFRASTRUCTURE_FAILED
        self.put((str(row["pass"]), str(row["id"])), path, start, given=given)

    def add_missing(self, other: KeptAnswers) -> None:
        """Remember of ``other`` what is not given here."""
        files = list(other._files)
        for name, places in other._places.items():
            for each, place in places.items():
                key = (name, each)
                if not self.is_given(key):
                    self.put(key, files[place % _FILES], place // _FILES, given=other.is_given(key))

    def __contains__(self, key: Key) -> bool:
        return key[1] in self._places.get(key[0], ())

    def is_given(self, key: Key) -> bool:
        """Tell whether the model was heard, whatever it said."""
        return key in self and key not in self.failed

    def line(self, key: Key) -> bytes:
        """Return the row of an answer as its journal holds it."""
        start, number = divmod(self._places[key[0]][key[1]], _FILES)
        if number not in self._open:
            self._open[number] = list(self._files)[number].open("rb")
        self._open[number].seek(start)
        return self._open[number].readline()

    def __getitem__(self, key: Key) -> Answer:
        return answer_in(self.line(key))

    def of_one_journal(self, path: Path, name: str, ids: Iterable[str]) -> Sequence[Answer]:
        """Return the answers of one pass in the order of ``ids``; all of them lie in ``path``."""
        places = self._places.get(name, {})
        return RowFile(path, answer_in, (places[each] // _FILES for each in ids))
