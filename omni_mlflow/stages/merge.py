"""merge: join the shards of an evaluation; what is missing, doubled or foreign is refused, all of it at once.

Truth comes from the sealed targets alone. The result fills the folder of ``evaluate``, as if one process had
asked every sample; what follows does not know the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import BadRowError, file_digest, read_rows
from omni_mlflow.spine.types import Answer, Check, LabelledSample, Sample, Split
from omni_mlflow.stages.answering import Key, is_given
from omni_mlflow.stages.base import Ground, Report, Run
from omni_mlflow.stages.evaluate import EVALUATE, Questions, conclude, questions
from omni_mlflow.stages.evaluation_identity import differing
from omni_mlflow.stages.known_answers import AnswerSheet, read_sheet, shard_folders
from omni_mlflow.stages.manifests import TEST_TARGETS
from omni_mlflow.workspace import StageFolder, StaleInputError

_OF_A_ROW = {"pass", *Answer.model_fields}


def _merge(run: Run) -> Report:
    return conclude(run, questions(run), predictor=None)


def broken_shards(ground: Ground) -> list[Check]:
    """Return everything for which the shards cannot be one evaluation; no truth is read."""
    folders = shard_folders(ground)
    if not folders:
        command = "omni-mlflow evaluate --sample-offset 0 --sample-stride 2"
        return [_broken("there_are_shards", ground.model.id, f"shards, as made by {command}", "none")]
    asked = questions(ground)
    failures = [*_altered_truth(ground, asked)]
    sheets = []
    for folder in folders:
        sheet, problems = _read(folder)
        failures += problems
        if sheet is not None:
            failures += _foreign_parts(sheet, asked)
            sheets.append(sheet)
    judge = _Judge(ground, asked)
    given: dict[Key, dict[str, Answer]] = {}
    for sheet in sheets:
        for key, answer in judge.answers(sheet):
            given.setdefault(key, {})[sheet.folder.stage] = answer
    return [*failures, *judge.failures, *_missing(asked, given), *_contradictions(given)]


def _read(folder: StageFolder) -> tuple[AnswerSheet | None, list[Check]]:
    try:
        sheet = read_sheet(folder)
    except (BadRowError, StaleInputError) as error:
        return None, [_broken("shard_can_be_read", folder.stage, "a sealed or growing journal", str(error))]
    if sheet is None:
        return None, [_broken("shard_can_be_read", folder.stage, "a journal of answers", "none")]
    return sheet, []


def _foreign_parts(sheet: AnswerSheet, asked: Questions) -> Iterator[Check]:
    for part in differing(sheet.identity, asked.identity):
        wanted, found = (str(each.get(part, "none"))[:16] for each in (asked.identity, sheet.identity))
        yield _broken(f"shard_is_of_this_{part}", sheet.folder.stage, wanted, found)


def _altered_truth(ground: Ground, asked: Questions) -> Iterator[Check]:
    """The sealed targets against the digest that the dataset was given when it was exported."""
    wanted = asked.dataset.files[TEST_TARGETS]
    found = file_digest(ground.open("export", TEST_TARGETS))
    if found != wanted:
        yield _broken("sealed_truth_is_that_of_the_dataset", TEST_TARGETS, wanted[:16], found[:16])


class _Judge:
    """Looks at every row of every shard.

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
        """Yield what the shard's samples were last answered; rows that are no answer are remembered."""
        found: dict[Key, Answer] = {}
        for number, row in enumerate(sheet.rows, start=2):
            where = f"{sheet.folder.stage} line {number}"
            if strange := sorted({*row} - _OF_A_ROW):
                self._refuse("shard_holds_no_truth", where, "an answer and nothing else", str(strange))
                continue
            try:
                answer = Answer.model_validate({key: row[key] for key in row if key != "pass"})
            except ValidationError as error:
                self._refuse("shard_row_is_an_answer", where, "the fields of an answer", _told(error))
                continue
            if self._belongs(answer, row, where):
                found[row["pass"], answer.id] = answer
        yield from found.items()

    def _belongs(self, answer: Answer, row: Mapping[str, Any], where: str) -> bool:
        sample = self._asked.get(answer.id)
        if sample is None:
            found = f"{answer.id} of {self._where_is(answer.id)}"
            self._refuse("shard_answers_held_out_samples", where, "a sample of test that is asked", found)
            return False
        wanted = (sample.episode_id, sample.anchor)
        if (answer.episode_id, answer.anchor) != wanted or row.get("pass") not in self._passes:
            found = f"{row.get('pass')} {answer.episode_id} {answer.anchor}"
            self._refuse("shard_row_names_its_sample", where, f"{sorted(self._passes)} {wanted}", found)
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
        self.failures.append(_broken(rule, subject, expected, found))


def _missing(asked: Questions, given: Mapping[Key, Any]) -> Iterator[Check]:
    for name, samples in asked.passes.items():
        for sample in samples:
            if (name, sample.id) not in given:
                yield _broken("every_sample_is_answered", f"{name} {sample.id}", "one answer", "none")


def _contradictions(given: Mapping[Key, Mapping[str, Answer]]) -> Iterator[Check]:
    """The same answer twice is one answer; a failure of the infrastructure beside an answer is none."""
    for (name, sample_id), by_shard in given.items():
        said = {shard: answer for shard, answer in by_shard.items() if is_given(answer)}
        if len(_different(said.values())) > 1:
            subject, found = f"{name} {sample_id}", f"different ones in {', '.join(sorted(said))}"
            yield _broken("one_answer_per_sample", subject, "one answer", found)


def _different(answers: Iterable[Answer]) -> Sequence[Answer]:
    found: list[Answer] = []
    for answer in answers:
        if answer not in found:
            found.append(answer)
    return found


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def _broken(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)


MERGE = replace(EVALUATE, name="merge", run=_merge, admits=broken_shards, fills=EVALUATE)
