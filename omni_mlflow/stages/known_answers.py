"""Answers that journals of this workspace hold already: those of shards, and of evaluations set aside.

They are taken over by identity, whoever was asked: an evaluation begun as eight shards goes on as three, or
as one, and a finished one whose metrics changed asks nobody again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.journal import read_journal
from omni_mlflow.spine.types import Answer
from omni_mlflow.stages.answering import Key, answers_in, is_given
from omni_mlflow.stages.base import Ground, Run
from omni_mlflow.stages.evaluation_identity import Identity, differing
from omni_mlflow.stages.manifests import GENERATED
from omni_mlflow.workspace import StageFolder, StaleInputError

PARTIAL = "predictions.partial.jsonl"


@dataclass(frozen=True)
class AnswerSheet:
    """The journal of answers in one folder: whose they are, and its rows as they are."""

    folder: StageFolder
    identity: Identity
    batch_size: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class KnownAnswers:
    """Every answer of one identity that lies outside the folder of the stage at work.

    Attributes:
        batch_size: of any of the journals; None where there is none.
        generated: folders of the large things that these answers name.
    """

    answers: dict[Key, Answer]
    batch_size: int | None
    generated: tuple[Path, ...]

    def bring_generated(self, out: Path) -> None:
        """Copy what the answers name to ``out``, so that they can be scored there."""
        for folder in self.generated:
            shutil.copytree(folder, out, dirs_exist_ok=True)


def known_answers(run: Run, identity: Identity) -> KnownAnswers:
    """Read what other folders hold of ``identity``; a shard of another one is told, and left alone.

    Raises:
        BadRowError: a finished row of a shard is not JSON.
        StaleInputError: a shard changed after it was sealed.
    """
    sheets = [*_of_this_identity(run, identity), *_set_aside(run, identity)]
    answers: dict[Key, Answer] = {}
    for sheet in sheets:
        for key, answer in answers_in(sheet.rows).items():
            if not is_given(answers.get(key)):
                answers[key] = answer
    generated = (sheet.folder.path / GENERATED for sheet in sheets)
    return KnownAnswers(
        answers=answers,
        batch_size=sheets[0].batch_size if sheets else None,
        generated=tuple(folder for folder in generated if folder.is_dir()),
    )


def _of_this_identity(run: Run, identity: Identity) -> Iterator[AnswerSheet]:
    for folder in [*shard_folders(run), run.workspace.stage("evaluate", backbone=run.model.id)]:
        if folder.path != run.folder and (sheet := read_sheet(folder)) is not None:
            if parts := differing(sheet.identity, identity):
                run.say(f"{folder.title} holds answers of another evaluation (different: {', '.join(parts)})")
            else:
                yield sheet


def _set_aside(run: Run, identity: Identity) -> Iterator[AnswerSheet]:
    shelf = run.workspace.root / "superseded"
    for path in sorted(shelf.glob(f"{run.model.id}-evaluate-*")):
        try:
            sheet = read_sheet(StageFolder(shelf, path.name, None))
        except StaleInputError:  # nothing is lost with a damaged one: its samples are asked again
            continue
        if sheet is not None and not differing(sheet.identity, identity):
            yield sheet


def shard_folders(ground: Ground) -> list[StageFolder]:
    """The folders of the shards of this backbone, by name."""
    paths = sorted((ground.workspace.root / ground.model.id).glob("evaluate-*-of-*"))
    return [ground.workspace.stage(path.name, backbone=ground.model.id) for path in paths if path.is_dir()]


def read_sheet(folder: StageFolder) -> AnswerSheet | None:
    """Read the journal of answers in ``folder``, finished or not; None where none was begun.

    Raises:
        BadRowError: a finished row is not JSON.
        StaleInputError: the journal changed after it was sealed.
    """
    path = folder.path / PARTIAL
    if not path.is_file():
        return None
    if folder.seal() is not None:
        folder.open(PARTIAL)
    head, *rows = [*read_journal(path)] or [{}]
    if "identity" not in head:
        return None
    return AnswerSheet(folder, identity=head["identity"], batch_size=head["batch_size"], rows=rows)
