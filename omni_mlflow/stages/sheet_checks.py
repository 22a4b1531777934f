"""Whether journals of answers belong to one evaluation: each row to a sample that it asks, one to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Answer, Check, LabelledSample, Sample, Split
from omni_mlflow.stages.answer_sheets import AnswerSheet
from omni_mlflow.stages.answering import Key, is_given
from omni_mlflow.stages.asked import Questions
from omni_mlflow.stages.base import Ground

Given = Mapping[Key, Sequence[tuple[str, Answer]]]
"""Everything that was said to each sample, with the name of the folder that says it."""

_OF_A_ROW = {"pass", *Answer.model_fields}


def judged(ground: Ground, asked: Questions, sheets: Iterable[AnswerSheet]) -> tuple[Given, list[Check]]:
    """Return what ``sheets`` answer, and every row and pair of rows that cannot stand."""
    judge = Judge(ground, asked)
    given: dict[Key, list[tuple[str, Answer]]] = {}
    for sheet in sheets:
        for key, answer in judge.answers(sheet):
            given.setdefault(key, []).append((sheet.folder.stage, answer))
    return given, [*judge.failures, *contradictions(given)]


class Judge:
    """Looks at every row of every journal.

    Attributes:
        failures: rows that are no answer to a held-out sample of this evaluation.
    """

    def __init__(self, ground: Ground, asked: Questions) -> None:
        self.failures: list[Check] = []
        self._ground = ground
        self._passes = set(asked.passes)
        self._asked = {sample.id: sample for sample in asked.samples}
        self._split_of: dict[str, str] | None = None

    def answers(self, sheet: AnswerSheet) -> Iterator[tuple[Key, Answer]]:
        """Yield every answer of the sheet; rows that are no answer to this evaluation are remembered."""
        for number, row in enumerate(sheet.rows, start=2):
            where = f"{sheet.folder.stage} line {number}"
            if strange := sorted({*row} - _OF_A_ROW):
                self._refuse("row_holds_no_truth", where, "an answer and nothing else", str(strange))
                continue
            try:
                answer = Answer.model_validate({key: row[key] for key in row if key != "pass"})
            except ValidationError as error:
                self._refuse("row_is_an_answer", where, "the fields of an answer", _told(error))
                continue
            if self._belongs(answer, row, where):
                yield (row["pass"], answer.id), answer

    def _belongs(self, answer: Answer, row: Mapping[str, Any], where: str) -> bool:
        sample = self._asked.get(answer.id)
        if sample is None:
            found = f"{answer.id} of {self._where_is(answer.id)}"
            self._refuse("row_answers_a_held_out_sample", where, "a sample of test that is asked", found)
            return False
        wanted = (sample.episode_id, sample.anchor)
        if (answer.episode_id, answer.anchor) != wanted or row.get("pass") not in self._passes:
            found = f"{row.get('pass')} {answer.episode_id} {answer.anchor}"
            self._refuse("row_names_its_sample", where, f"{sorted(self._passes)} {wanted}", found)
            return False
        return True

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
        self.failures.append(refused(rule, subject, expected, found))


def contradictions(given: Given) -> Iterator[Check]:
    """The same answer twice is one answer; a failure of the infrastructure beside an answer is none."""
    for (name, sample_id), said in given.items():
        heard = [(sheet, answer) for sheet, answer in said if is_given(answer)]
        if len(_different(answer for _, answer in heard)) > 1:
            subject = f"{name} {sample_id}"
            found = f"different ones in {', '.join(sorted({sheet for sheet, _ in heard}))}"
            yield refused("one_answer_per_sample", subject, "one answer", found)


def _different(answers: Iterable[Answer]) -> Sequence[Answer]:
    found: list[Answer] = []
    for answer in answers:
        if answer not in found:
            found.append(answer)
    return found


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def refused(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)
