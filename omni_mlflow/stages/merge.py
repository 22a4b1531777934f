"""merge: join the shards of an evaluation; what is missing, doubled or foreign is refused, all of it at once.

Truth comes from the sealed targets alone. The result fills the folder of ``evaluate``, as if one process had
asked every sample; what follows does not know the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from omni_mlflow.spine.rows import BadRowError, file_digest
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.answer_sheets import AnswerSheet, read_sheet, shard_folders
from omni_mlflow.stages.asked import Questions, questions
from omni_mlflow.stages.base import Ground, Report, Run
from omni_mlflow.stages.evaluate import EVALUATE, conclude
from omni_mlflow.stages.evaluation_identity import differing
from omni_mlflow.stages.manifests import TEST_TARGETS
from omni_mlflow.stages.sheet_checks import Judge, refused
from omni_mlflow.workspace import StageFolder, StaleInputError

_CAN_BE_READ = "shard_can_be_read"


def _merge(run: Run) -> Report:
    return conclude(run, questions(run), predictor=None)


def broken_shards(ground: Ground) -> list[Check]:
    """Return everything for which the shards cannot be one evaluation; no truth is read."""
    folders = shard_folders(ground)
    if not folders:
        command = "omni-mlflow evaluate --sample-offset 0 --sample-stride 2"
        return [refused("there_are_shards", ground.model.id, f"shards, as made by {command}", "none")]
    asked = questions(ground)
    failures = [*_altered_truth(ground, asked)]
    judge = Judge(ground, asked)
    batch_sizes: list[int] = []
    for folder in folders:
        failures += _read(folder, asked, judge, batch_sizes)
    failures += judge.failures()
    if any(each.rule == _CAN_BE_READ for each in failures):
        return failures  # nobody knows what is missing while a shard cannot be read to its end
    return [*failures, *_missing(asked, judge, batch_size=batch_sizes[0] if batch_sizes else 1)]


def _read(folder: StageFolder, asked: Questions, judge: Judge, batch_sizes: list[int]) -> Iterator[Check]:
    try:
        sheet = read_sheet(folder)
        if sheet is None:
            yield refused("shard_was_begun", folder.stage, "a journal of answers", "none")
            return
        yield from _foreign_parts(sheet, asked)
        batch_sizes.append(sheet.batch_size)
        judge.read(sheet)
    except (BadRowError, StaleInputError) as error:
        yield refused(_CAN_BE_READ, folder.stage, "a sealed or growing journal", str(error))


def _foreign_parts(sheet: AnswerSheet, asked: Questions) -> Iterator[Check]:
    """Each part in which a shard was asked otherwise, such as of an earlier checkpoint, and the remedy."""
    folder = sheet.folder
    for part in differing(sheet.identity, asked.identity):
        wanted, found = (str(each.get(part, "none"))[:16] for each in (asked.identity, sheet.identity))
        remedy = (
            f"this folder holds answers of another {part}: ask that shard again with the present one, or "
            f"move {folder.path} out of the workspace"
        )
        yield refused(f"shard_is_of_this_{part}", folder.stage, wanted, f"{found}; {remedy}")


def _altered_truth(ground: Ground, asked: Questions) -> Iterator[Check]:
    """The sealed targets against the digest that the dataset was given when it was exported."""
    wanted = asked.dataset.files[TEST_TARGETS]
    found = file_digest(ground.open("export", TEST_TARGETS))
    if found != wanted:
        yield refused("sealed_truth_is_that_of_the_dataset", TEST_TARGETS, wanted[:16], found[:16])


def _missing(asked: Questions, judge: Judge, *, batch_size: int) -> Iterator[Check]:
    for name, ids in asked.rounds(asked.ids, batch_size=batch_size).items():
        for sample_id in ids:
            if not judge.found(name, sample_id):
                yield refused("every_sample_is_answered", f"{name} {sample_id}", "one answer", "none")


MERGE = replace(EVALUATE, name="merge", run=_merge, admits=broken_shards, fills=EVALUATE)
