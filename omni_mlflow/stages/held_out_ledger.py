"""Held-out targets are opened here only, and every opening is written down before it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.journal import Journal, in_turn
from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Check, Row, Target
from omni_mlflow.stages.base import Run
from omni_mlflow.stages.manifests import TEST_TARGETS, DatasetManifest, open_arrays

LEDGER_NAME = "held_out_ledger.jsonl"


class Opening(Row):
    """One look at the truths of a held-out split.

    Attributes:
        evaluation: identity of the evaluation: checkpoint, dataset, settings, code. The same one going on
            after it was killed is the same look.
    """

    split_digest: str
    backbone: str
    checkpoint_digest: str
    evaluation: str
    purpose: str


def open_targets(run: Run, dataset: DatasetManifest, opening: Opening) -> tuple[Sequence[Target], Arrays]:
    """Record ``opening`` in the workspace's ledger, then read the sealed targets and their numbers."""
    path = ledger_path(run)
    with in_turn(path.with_suffix(".lock")), Journal(path) as ledger:
        run.report_torn(ledger)
        row = opening.model_dump(mode="json")
        if row not in ledger.rows():
            ledger.append(row)
    targets = list(read_rows(run.open("export", TEST_TARGETS), Target))
    return targets, open_arrays(run, dataset, TEST_TARGETS)


def openings_of(run: Run, split_digest: str) -> list[Opening]:
    """Every recorded look at the truths of this split, by any backbone, oldest first."""
    path = ledger_path(run)
    openings = list(read_rows(path, Opening)) if path.is_file() else []
    return [each for each in openings if each.split_digest == split_digest]


def unrecorded(run: Run, evaluation: Mapping[str, Any]) -> list[Check]:
    """The broken rule of an ``evaluation.json`` whose look at the truths is in no ledger (any more)."""
    openings = openings_of(run, evaluation["split_digest"])
    if any(each.checkpoint_digest == evaluation["checkpoint_digest"] for each in openings):
        return []
    return [
        Check(
            rule="opening_is_recorded",
            subject=LEDGER_NAME,
            expected=f"a row of checkpoint {evaluation['checkpoint_digest'][:16]}",
            found="none; put the ledger back, or delete the evaluation and run 'evaluate' again",
            ok=False,
        )
    ]


def ledger_path(run: Run) -> Path:
    """One ledger per workspace: no rerun of a stage, setting or backbone can make it forget."""
    return run.workspace.root / LEDGER_NAME
