"""Whether journals of answers belong to one evaluation: each row to a sample that it asks, one to each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import digest_of, read_rows
from omni_mlflow.spine.types import Answer, Check, LabelledSample, Sample, Split
from omni_mlflow.stages.answer_sheets import AnswerSheet
from omni_mlflow.stages.asked import Questions
from omni_mlflow.stages.asking import says_nothing
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.kept_answers import is_given

_OF_A_ROW = frozenset({"pass", *Answer.model_fields})


_LOST = 0
"""The print of a row that says no more than that a failure of the infrastructure left no answer."""


class _Heard:
    """Which journals hold a row of each sample in one pass, and a print of it: twelve bytes for each."""

    def __init__(self, num_samples: int) -> None:
        self._journals = array("I", bytes(array("I").itemsize * num_samples))  # number of the first, from 1
        self._prints = array("q", bytes(array("q").itemsize * num_samples))
        self._further: dict[int, list[tuple[int, int]]] = {}

    def add(self, place: int, journal: int, print_: int) -> None:
        if place in self:
            self._further.setdefault(place, []).append((journal, print_))
        else:
            self._journals[place], self._prints[place] = journal + 1, print_

    def __contains__(self, place: int) -> bool:
        return self._journals[place] > 0

    def several(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield each sample of which there is more than one row, and the journal and print of each row."""
        for place, further in sorted(self._further.items()):
            yield place, [(self._journals[place] - 1, self._prints[place]), *further]


class Judge:
    """Looks at every row of every journal, and remembers of each whose it is and a print of what it says."""

    def __init__(self, ground: Ground, asked: Questions) -> None:
        self._failures: list[Check] = []
        self._ground = ground
        self._asked = asked
        self._place_of = {each: place for place, each in enumerate(asked.ids)}
        self._journals: list[str] = []
        self._heard = {name: _Heard(len(asked.ids)) for name in asked.passes}
        self._split_of: dict[str, str] | None = None

    def read(self, sheet: AnswerSheet) -> None:
        """Look at every row of a sheet.

        Raises:
            BadRowError: a finished row is not JSON.
        """
        folder = sheet.folder.stage
        self._journals.append(folder)
        for number, (_, row) in enumerate(sheet.rows(), start=2):
            where = f"{folder} line {number}"
            if not row.keys() <= _OF_A_ROW:
                strange = sorted(row.keys() - _OF_A_ROW)
                self._refuse("row_holds_no_truth", where, "an answer and nothing else", str(strange))
                continue
            in_pass = row.pop("pass", None)
            try:
                answer = Answer.model_validate(row)
            except ValidationError as error:
                self._refuse("row_is_an_answer", where, "the fields of an answer", _told(error))
                continue
            if says_nothing(answer):
                self._refuse("row_is_an_answer", where, "something said, or model_invalid", "nothing")
                continue
            if self._belongs(answer, in_pass, where):
                print_ = _print_of(answer) if is_given(answer) else _LOST
                self._heard[in_pass].add(self._place_of[answer.id], len(self._journals) - 1, print_)

    def found(self, name: str, sample_id: str) -> bool:
        """Tell whether any row is about a sample that is asked in the pass ``name``."""
        return self._place_of[sample_id] in self._heard[name]

    def failures(self) -> list[Check]:
        """Return every row and pair of rows that cannot stand."""
        return [*self._failures, *self._contradictions()]

    def _contradictions(self) -> Iterator[Check]:
        """The same answer in two shards is one answer, and a failure of the infrastructure is none.

        One journal never answers a sample twice: what was answered is not asked again.
        """
        several = ((name, *each) for name, heard in self._heard.items() for each in heard.several())
        for name, place, said in several:
            sample_id = self._asked.ids[place]
            heard = [(self._journals[journal], print_) for journal, print_ in said if print_ != _LOST]
            if len({print_ for _, print_ in heard}) > 1:
                found = f"different ones in {', '.join(sorted({sheet for sheet, _ in heard}))}"
                yield refused("one_answer_per_sample", f"{name} {sample_id}", "one answer", found)
            elif twice := sorted(
                {sheet for sheet, times in Counter(s for s, _ in heard).items() if times > 1}
            ):
                found = f"the same one twice in {', '.join(twice)}"
                yield refused("one_row_per_answer", f"{name} {sample_id}", "one row in a journal", found)

    def _belongs(self, answer: Answer, in_pass: Any, where: str) -> bool:
        place = self._place_of.get(answer.id)
        if place is None:
            found = f"{answer.id} of {self._where_is(answer.id)}"
            self._refuse("row_answers_a_held_out_sample", where, "a sample of test that is asked", found)
            return False
        wanted = (self._asked.episodes[place], self._asked.anchors[place])
        if (answer.episode_id, answer.anchor) != wanted or not self._is_pass(in_pass):
            found = f"{in_pass} {answer.episode_id} {answer.anchor}"
            self._refuse("row_names_its_sample", where, f"{sorted(self._heard)} {wanted}", found)
            return False
        return True

    def _is_pass(self, name: Any) -> bool:
        return isinstance(name, str) and name in self._heard

    def _where_is(self, sample_id: str) -> str:
        """Name the split of a sample that is not asked; its rows are read only once one is found."""
        if self._split_of is None:
            learned = (
                row.sample
                for split in (Split.TRAIN, Split.VAL)
                for row in read_rows(self._ground.open("export", f"samples/{split}.jsonl"), LabelledSample)
            )
            held_out = read_rows(self._ground.open("export", "samples/test.jsonl"), Sample)
            self._split_of = {each.id: each.split.value for each in (*learned, *held_out)}
        return self._split_of.get(sample_id, "no split of this dataset")

    def _refuse(self, rule: str, subject: str, expected: str, found: str) -> None:
        self._failures.append(refused(rule, subject, expected, found))


def _print_of(answer: Answer) -> int:
    """Eight bytes that two different answers to one sample hardly ever share."""
    numbers = digest_of(answer.values) if answer.values else ""
    return hash((answer.outcome, answer.raw, answer.reason, numbers)) or 1  # 0 is taken


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def refused(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)
