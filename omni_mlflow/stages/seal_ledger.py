"""Held-out targets are opened here only, and every opening is written down before it happens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omni_mlflow.journal import Journal
from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Row, Target
from omni_mlflow.stages.base import Run
from omni_mlflow.stages.export import TEST_TARGETS

LEDGER_NAME = "seal_ledger.jsonl"


class Opening(Row):
    """One look at the held-out targets of a dataset."""

    dataset_digest: str
    checkpoint_digest: str
    purpose: str


def open_targets(run: Run, opening: Opening) -> Sequence[Target]:
    """Record ``opening`` in the backbone's seal ledger, then read the sealed targets.

    The same look repeated (an evaluation that was killed and goes on) is one opening.
    """
    with Journal(ledger_path(run)) as ledger:
        row = opening.model_dump(mode="json")
        if row not in ledger.rows():
            ledger.append(row)
    return list(read_rows(run.open("export", TEST_TARGETS), Target))


def openings_of(run: Run, dataset_digest: str) -> list[Opening]:
    """Every recorded look at the targets of this dataset, oldest first."""
    path = ledger_path(run)
    openings = list(read_rows(path, Opening)) if path.is_file() else []
    return [each for each in openings if each.dataset_digest == dataset_digest]


def ledger_path(run: Run) -> Path:
    """The ledger lies beside the stages of a backbone: no rerun of a stage can make it forget."""
    return run.folder.parent / LEDGER_NAME
