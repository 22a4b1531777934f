"""The seal of one episode's index: an interrupted index goes on only from files that are whole."""

from __future__ import annotations

from pathlib import Path

from omni_mlflow.spine.rows import UNREADABLE, file_digest, read_document, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Row

NAME = "index.json"


class EpisodeSeal(Row):
    """What the index of one episode was made from, and sha256 of every file of it."""

    schema_version: int = SCHEMA_VERSION
    made_from: str
    files: dict[str, str]


def seal(folder: Path, *, made_from: str) -> None:
    """Write the seal, after all other files of ``folder``."""
    write_document(folder / NAME, EpisodeSeal(made_from=made_from, files=_digests(folder)))


def is_whole(folder: Path, *, made_from: str) -> bool:
    """Whether ``folder`` was made from this, and every file of it is as it was sealed."""
    try:
        found = read_document(folder / NAME, EpisodeSeal)
    except UNREADABLE:
        return False
    return found.made_from == made_from and found.files == _digests(folder)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: file_digest(path)
        for path in sorted(folder.iterdir())
        if path.name != NAME and not path.name.startswith(".")
    }
