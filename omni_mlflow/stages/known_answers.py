"""Answers that journals of this workspace hold already: those of shards, and of evaluations set aside.

They are taken over by identity, whoever was asked: an evaluation begun as eight shards goes on as three, or
as one, and a finished one that is scored anew, by another bound or other metrics, asks nobody again. How
a reply is read (``metrics/answers.py``) is a part of the identity: where that changed, all are asked again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.answer_sheets import PARTIAL, AnswerSheet, read_sheet, shard_folders
from omni_mlflow.stages.asked import Questions, questions
from omni_mlflow.stages.base import Ground, Run
from omni_mlflow.stages.evaluation_identity import Identity, differing
from omni_mlflow.stages.kept_answers import KeptAnswers
from omni_mlflow.stages.manifests import GENERATED
from omni_mlflow.stages.sheet_checks import Judge
from omni_mlflow.workspace import StageFolder, StaleInputError


@dataclass(frozen=True)
class KnownAnswers:
    """Every answer of one identity that lies outside the folder of the stage at work.

    Attributes:
        batch_size: of any of the journals; None where there is none.
        generated: folders of the large things that these answers name.
    """

    answers: KeptAnswers
    batch_size: int | None
    generated: tuple[Path, ...]

    def bring_generated(self, out: Path) -> None:
        """Copy what the answers name to ``out``, so that they can be scored there."""
        for folder in self.generated:
            shutil.copytree(folder, out, dirs_exist_ok=True)


def broken_answers(ground: Ground) -> list[Check]:
    """Return what the journals of this very evaluation hold that is no answer to it, its own begun one too.

    None of it would be noticed once it is taken over. Journals of other evaluations, and those that cannot be
    read, are not judged: the former are left alone, the latter stop the stage in their own words.
    """
    folders = [folder for folder in _folders(ground) if (folder.path / PARTIAL).is_file()]
    if not folders:
        return []
    asked = questions(ground)
    judge = Judge(ground, asked)
    for folder in folders:
        with suppress(BadRowError, StaleInputError):
            sheet = read_sheet(folder)
            if sheet is not None and not differing(sheet.identity, asked.identity):
                judge.read(sheet)
    return judge.failures()


def known_answers(run: Run, asked: Questions) -> KnownAnswers:
    """Read what other folders hold of this evaluation; a shard of another one is told, and left alone.

    Raises:
        BadRowError: a finished row of a shard is not JSON.
        StaleInputError: a shard changed after it was sealed.
    """
    sheets = [*_of_this_identity(run, asked.identity), *_set_aside(run, asked)]
    answers = KeptAnswers()
    for sheet in sheets:
        answers.add_missing(_held_in(sheet))
    generated = (sheet.folder.path / GENERATED for sheet in sheets)
    return KnownAnswers(
        answers=answers,
        batch_size=sheets[0].batch_size if sheets else None,
        generated=tuple(folder for folder in generated if folder.is_dir()),
    )


def knows_more(ground: Ground) -> bool:
    """Tell whether shards hold answers to samples that the finished evaluation lost."""
    finished = ground.workspace.stage("evaluate", backbone=ground.model.id)
    seal = finished.seal()
    sheet = read_sheet(finished) if seal is not None and seal.skipped else None
    if sheet is None:
        return False
    lost = _held_in(sheet).failed
    shards = (read_sheet(folder) for folder in shard_folders(ground))
    alike = (each for each in shards if each is not None and not differing(each.identity, sheet.identity))
    return any(held.is_given(key) for held in map(_held_in, alike) for key in lost)


def _held_in(sheet: AnswerSheet) -> KeptAnswers:
    held = KeptAnswers()
    for start, row in sheet.rows():
        held.put_row(sheet.file, start, row)
    return held


def _of_this_identity(run: Run, identity: Identity) -> Iterator[AnswerSheet]:
    for folder in _folders(run):
        if folder.path != run.folder and (sheet := read_sheet(folder)) is not None:
            if parts := differing(sheet.identity, identity):
                run.say(f"{folder.title} holds answers of another evaluation (different: {', '.join(parts)})")
            else:
                yield sheet


def _folders(ground: Ground) -> list[StageFolder]:
    return [*shard_folders(ground), ground.workspace.stage("evaluate", backbone=ground.model.id)]


def _set_aside(run: Run, asked: Questions) -> Iterator[AnswerSheet]:
    """Nothing is lost with one that is damaged: its samples are asked again."""
    for path in run.workspace.stage("evaluate", backbone=run.model.id).shelved():
        try:
            sheet = read_sheet(StageFolder(path.parent, path.name, None))
        except (BadRowError, StaleInputError):
            continue
        if sheet is None or differing(sheet.identity, asked.identity):
            continue
        judge = Judge(run, asked)
        with suppress(BadRowError):
            judge.read(sheet)
            if not judge.failures():
                yield sheet
