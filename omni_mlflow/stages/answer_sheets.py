"""Journals of answers in the folders of an evaluation and its shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni_mlflow.journal import read_journal
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.evaluation_identity import Identity
from omni_mlflow.workspace import StageFolder

PARTIAL = "predictions.partial.jsonl"


@dataclass(frozen=True)
class AnswerSheet:
    """The journal of answers in one folder: whose they are, and its rows as they are."""

    folder: StageFolder
    identity: Identity
    batch_size: int
    rows: list[dict[str, Any]]


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
