"""Journals of answers in the folders of an evaluation and its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from omni_mlflow.journal import follow_open_journal
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.evaluation_identity import Identity
from omni_mlflow.workspace import StageFolder

PARTIAL = "predictions.partial.jsonl"


class Head(BaseModel):
    """The first row of a journal of answers."""

    model_config = ConfigDict(strict=True)

    identity: Identity
    batch_size: PositiveInt


def read_head(row: Mapping[str, Any], *, path: Path) -> Head:
    """Read the first row of the journal of answers at ``path``.

    Raises:
        BadRowError: no evaluation writes such a row.
    """
    try:
        return Head.model_validate(row)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BadRowError(
            f"{path}:1: no evaluation begins its journal with this row ({wrong}); put it back as it was, or "
            f"move {path.parent} out of the workspace"
        ) from error


@dataclass(frozen=True)
class AnswerSheet:
    """The journal of answers in one folder: whose they are, and its rows as they are, read anew each time.

    Attributes:
        file: the journal, held open: it stays what it is when its folder is moved away and begun anew.
        start: the byte where the rows begin, behind the identity.
    """

    folder: StageFolder
    file: BufferedReader
    identity: Identity
    batch_size: int
    start: int

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each row with the byte where it starts.

        Raises:
            BadRowError: a finished row is not JSON.
        """
        start = self.start
        for row, end in follow_open_journal(self.file, start=start):
            yield start, row
            start = end


def shard_folders(ground: Ground) -> list[StageFolder]:
    """The folders of the shards of this backbone, by name."""
    paths = sorted((ground.workspace.root / ground.model.id).glob("evaluate-*-of-*"))
    return [ground.workspace.stage(path.name, backbone=ground.model.id) for path in paths if path.is_dir()]


def read_sheet(folder: StageFolder) -> AnswerSheet | None:
    """Open the journal of answers in ``folder``, finished or not; None where none was begun.

    Raises:
        BadRowError: the first row is not JSON, or not what an evaluation begins its journal with.
        StaleInputError: the journal changed after it was sealed.
    """
    path = folder.path / PARTIAL
    if not path.is_file():
        return None
    file = path.open("rb")
    if folder.seal() is not None:
        folder.open(PARTIAL)
    row, start = next(follow_open_journal(file, start=0), (None, 0))
    if row is None:
        return None
    begun = read_head(row, path=path)
    return AnswerSheet(folder, file, identity=begun.identity, batch_size=begun.batch_size, start=start)
