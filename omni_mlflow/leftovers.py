"""What earlier attempts left in a stage's folder: whose work it is, which run made it, what must go."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

from omni_mlflow.events import JOURNAL_NAME, Event, Started, Tags, read_events
from omni_mlflow.record import now_ms
from omni_mlflow.stages.base import Stage
from omni_mlflow.workspace import StageFolder, StaleInputError

FAILURE_NAME = "failure.txt"
"""The traceback of the last attempt, when it failed for a reason nobody planned."""


def make_room(stage: Stage, folder: StageFolder, fingerprint: str) -> None:
    """Leave in the folder only what belongs to this work: finished, begun, or nothing.

    Other work moves aside; this work comes back if it was moved aside before.
    """
    if folder.path.is_dir() and _work_in(folder) != fingerprint:
        folder.set_aside(_work_in(folder))
    folder.take_back(fingerprint)
    folder.path.mkdir(parents=True, exist_ok=True)
    if folder.seal() is None:
        if not stage.resumable:
            folder.clear()
        folder.clear_half_written()
        (folder.path / FAILURE_NAME).unlink(missing_ok=True)


def put_away(folder: StageFolder) -> None:
    """Begin finished work anew, because what it looked at may have changed; its run stays as it ended."""
    folder.set_aside(f"earlier-{now_ms()}")
    folder.path.mkdir(parents=True)


def _work_in(folder: StageFolder) -> str:
    """The fingerprint of what lies in a stage's folder, finished or not."""
    seal = folder.seal()
    if seal is not None:
        return seal.fingerprint
    journal = folder.path / JOURNAL_NAME
    events = read_events(journal) if journal.is_file() else []
    named = [event.values["omni.fingerprint"] for event in events if _names_work(event)]
    return named[-1] if named else f"unknown-{now_ms()}"


def _names_work(event: Event) -> TypeGuard[Tags]:
    return isinstance(event, Tags) and "omni.fingerprint" in event.values


def key_of(folder: Path) -> str:
    """Return the key of the run whose journal lies in ``folder``."""
    journal = folder / JOURNAL_NAME
    events = read_events(journal) if journal.is_file() else []
    keys = [event.key for event in events if isinstance(event, Started)]
    if not keys:
        raise StaleInputError(
            f"{journal} is gone or holds no start of a run, so nobody knows which run made what lies "
            f"beside it; move {folder} away and run its stage again"
        )
    return keys[-1]
