"""Held-out targets are opened here only, and every opening is written down before it happens."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.journal import Journal
from omni_mlflow.locks import in_turn
from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.rows import read_rows, write_text
from omni_mlflow.spine.types import Check, Row, Target
from omni_mlflow.stages.base import Ground, Run
from omni_mlflow.stages.manifests import TEST_TARGETS, DatasetManifest, open_arrays
from omni_mlflow.workspace import SEAL_NAME

LEDGER_NAME = "seal_ledger.jsonl"
LOOK = ".look"


class Opening(Row):
    """One look at the truths of a held-out split.

    Attributes:
        evaluation: identity of the evaluation: checkpoint, dataset, settings, code.
        look: an evaluation that goes on after it was killed is the same look. Any other is a look of its
            own: one that begins anew, and one that only scores again what was answered before.
    """

    split_digest: str
    backbone: str
    checkpoint_digest: str
    evaluation: str
    purpose: str
    look: str


def look_of(run: Run) -> str:
    """Name the look that the evaluation in this folder has at the truths; the name goes with the folder.

    The folder is moved away once inputs, settings or code are others. It is moved away, too, when its journal
    lost what it is the work of: then this very work goes on with the look of the unfinished folder.
    """
    path = run.folder / LOOK
    if not path.is_file():
        shelf = (run.workspace.root / "superseded").glob(f"{run.model.id}-evaluate-*/{LOOK}")
        begun = next((look for look in sorted(shelf) if _goes_on(run, look)), None)
        if begun is not None:
            begun.rename(path)  # nobody else goes on with it
        else:
            write_text(path, f"{run.fingerprint} {uuid.uuid4().hex}")
    return path.read_text(encoding="utf-8").rpartition(" ")[2]


def _goes_on(run: Run, look: Path) -> bool:
    """Tell whether a folder on the shelf is this very work, unfinished."""
    is_finished = (look.parent / SEAL_NAME).exists()
    return not is_finished and look.read_text(encoding="utf-8").startswith(f"{run.fingerprint} ")


def open_targets(run: Run, dataset: DatasetManifest, opening: Opening) -> tuple[Sequence[Target], Arrays]:
    """Record ``opening`` in the workspace's ledger, then open the sealed targets and their numbers."""
    path = ledger_path(run)
    with in_turn(path.with_suffix(".lock")), Journal(path) as ledger:
        run.report_torn(ledger)
        row = opening.model_dump(mode="json")
        if row not in ledger.rows():
            ledger.append(row)
    targets = RowFile.over(run.open("export", TEST_TARGETS), Target)
    return targets, open_arrays(run, dataset, TEST_TARGETS)


def openings_of(ground: Ground, split_digest: str) -> list[Opening]:
    """Every recorded look at the truths of this split, by any backbone, oldest first."""
    path = ledger_path(ground)
    openings = list(read_rows(path, Opening)) if path.is_file() else []
    return [each for each in openings if each.split_digest == split_digest]


def opening_is_recorded(ground: Ground, evaluation: Mapping[str, Any]) -> Check:
    """Whether the ledger holds the look at the truths that an ``evaluation.json`` rests on."""
    checkpoint = evaluation["checkpoint_digest"]
    openings = openings_of(ground, evaluation["split_digest"])
    ok = any(each.checkpoint_digest == checkpoint for each in openings)
    return Check(
        rule="opening_is_recorded",
        subject=LEDGER_NAME,
        expected=f"a row of checkpoint {checkpoint[:16]}",
        found="a row of it"
        if ok
        else "none; put the ledger back, or delete the evaluation and run 'evaluate' again",
        ok=ok,
    )


def ledger_path(ground: Ground) -> Path:
    """One ledger per workspace: no rerun of a stage, setting or backbone can make it forget."""
    return ground.workspace.root / LEDGER_NAME
