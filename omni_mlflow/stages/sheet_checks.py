"""Whether journals of answers belong to one evaluation: each row to a sample that it asks, one to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from sys import intern
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import digest_of, read_rows
from omni_mlflow.spine.types import Answer, Check, LabelledSample, Sample, Split
from omni_mlflow.stages.answer_sheets import AnswerSheet
from omni_mlflow.stages.asked import Questions
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.kept_answers import Key, is_given

_OF_A_ROW = frozenset({"pass", *Answer.model_fields})


class Judge:
    """Looks at every row of every journal, and remembers of each answer whose it is and what it says.

    Attributes:
        given: by key, the folders that answer a sample, and a print of what each says; None where a failure
            of the infrastructure is all it says.
    """

    def __init__(self, ground: Ground, asked: Questions) -> None:
        self.given: dict[Key, tuple[tuple[str, int | None], ...]] = {}
        self._failures: list[Check] = []
        self._ground = ground
        self._passes = set(asked.passes)
        self._asked = dict(zip(asked.ids, zip(asked.episodes, asked.anchors, strict=True), strict=True))
        self._split_of: dict[str, str] | None = None

    def read(self, sheet: AnswerSheet) -> None:
        """Look at every row of a sheet.

        Raises:
            BadRowError: a finished row is not JSON.
        """
        folder = sheet.folder.stage
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
            if self._belongs(answer, in_pass, where):
                key = (intern(in_pass), intern(answer.id))
                said = (folder, _print_of(answer) if is_given(answer) else None)
                self.given[key] = (*self.given.get(key, ()), said)

    def failures(self) -> list[Check]:
        """Return every row and pair of rows that cannot stand."""
        return [*self._failures, *self._contradictions()]

    def _contradictions(self) -> Iterator[Check]:
        """The same answer in two shards is one answer, and a failure of the infrastructure is none.

        One journal never answers a sample twice: what was answered is not asked again.
        """
        several = ((key, said) for key, said in self.given.items() if len(said) > 1)
        for (name, sample_id), said in several:
            heard = [(sheet, print_) for sheet, print_ in said if print_ is not None]
            if len({print_ for _, print_ in heard}) > 1:
                found = f"different ones in {', '.join(sorted({sheet for sheet, _ in heard}))}"
                yield refused("one_answer_per_sample", f"{name} {sample_id}", "one answer", found)
            elif twice := sorted(
                {sheet for sheet, times in Counter(s for s, _ in heard).items() if times > 1}
            ):
                found = f"the same one twice in {', '.join(twice)}"
                yield refused("one_row_per_answer", f"{name} {sample_id}", "one row in a journal", found)

    def _belongs(self, answer: Answer, in_pass: Any, where: str) -> bool:
        wanted = self._asked.get(answer.id)
        if wanted is None:
            found = f"{answer.id} of {self._where_is(answer.id)}"
            self._refuse("row_answers_a_held_out_sample", where, "a sample of test that is asked", found)
            return False
        if (answer.episode_id, answer.anchor) != wanted or not self._is_pass(in_pass):
            found = f"{in_pass} {answer.episode_id} {answer.anchor}"
            self._refuse("row_names_its_sample", where, f"{sorted(self._passes)} {wanted}", found)
            return False
        return True

    def _is_pass(self, name: Any) -> bool:
        return isinstance(name, str) and name in self._passes

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
    return hash((answer.outcome, answer.raw, answer.reason, numbers))


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def refused(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)
