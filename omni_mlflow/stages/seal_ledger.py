"""Held-out targets are opened here only, and every opening is written down before it happens."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.events import SUPERSEDED
from omni_mlflow.journal import Journal
from omni_mlflow.locks import in_turn
from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.rows import UNREADABLE, digest_of, read_rows, write_text
from omni_mlflow.spine.types import Check, Row, Split, Target
from omni_mlflow.stages.base import Ground, Run
from omni_mlflow.stages.manifests import TEST_TARGETS, DatasetManifest, open_arrays
from omni_mlflow.workspace import SEAL_NAME, Workspace

LEDGER_NAME = "seal_ledger.jsonl"
LOOK = ".look"
FACTS = "evaluation.json"
_PUT_IT_BACK = "; put the ledger back, or delete the evaluation and run 'evaluate' again"


class LostLedgerError(Exception):
    """Evaluations of this workspace opened held-out targets, and the ledger says nothing of it."""


class Opening(Row):
    """One look at the truths of held-out episodes.

    Attributes:
        test_episodes: whose truths were opened: another train or val, or another plan of windows, does not
            make them unseen. Empty in a row of an older ledger: then those of its split.
        evaluation: identity of the evaluation: checkpoint, dataset, settings, code.
        answers: sha256 of the journal of answers that were compared with the truths: others are another look,
            though they lie in the same folder.
        look: an evaluation that goes on after it was killed is the same look. Any other is a look of its
            own: one that begins anew, and one that only scores again what was answered before.
    """

    split_digest: str
    test_episodes: tuple[str, ...] = ()
    backbone: str
    checkpoint_digest: str
    evaluation: str
    answers: str = ""
    purpose: str
    look: str


def look_of(run: Run) -> str:
    """Name the look that the evaluation in this folder has at the truths; the name goes with the folder.

    The folder is moved away once inputs, settings or code are others. It is moved away, too, when its journal
    lost what it is the work of: then this very work goes on with the look of the unfinished folder.
    """
    path = run.folder / LOOK
    if not path.is_file():
        shelved = run.workspace.stage("evaluate", backbone=run.model.id).shelved()
        looks = (each / LOOK for each in shelved if (each / LOOK).is_file())
        begun = next((look for look in looks if _goes_on(run, look)), None)
        if begun is not None:
            write_text(path, begun.read_text(encoding="utf-8"))
            begun.unlink()  # nobody else goes on with it
        else:
            write_text(path, f"{run.fingerprint} {uuid.uuid4().hex}")
    return path.read_text(encoding="utf-8").rpartition(" ")[2]


def _goes_on(run: Run, look: Path) -> bool:
    """Tell whether a folder on the shelf is this very work, unfinished."""
    is_finished = (look.parent / SEAL_NAME).exists()
    return not is_finished and look.read_text(encoding="utf-8").startswith(f"{run.fingerprint} ")


def open_targets(run: Run, dataset: DatasetManifest, opening: Opening) -> tuple[Sequence[Target], Arrays]:
    """Record ``opening`` in the workspace's ledger, then open the sealed targets and their numbers.

    Raises:
        LostLedgerError: a row is missing of an evaluation that this workspace still holds.
    """
    path = ledger_of(run.workspace)
    with in_turn(path.with_suffix(".lock")), Journal(path) as ledger:
        run.report_torn(ledger)
        rows = list(ledger.rows())
        _refuse_unrecorded(run, {row["evaluation"] for row in rows})
        row = opening.model_dump(mode="json")
        if row not in rows:
            ledger.append(row)
    targets = RowFile.over(run.open("export", TEST_TARGETS), Target)
    return targets, open_arrays(run, dataset, TEST_TARGETS)


def _refuse_unrecorded(run: Run, recorded: Collection[str]) -> None:
    """Refuse to count from one again where the ledger is gone and what it told of is still here."""
    root = run.workspace.root
    places = ("*/evaluate", f"*/{SUPERSEDED}/evaluate-*")
    for path in sorted(path for place in places for path in root.glob(f"{place}/{FACTS}")):
        with suppress(*UNREADABLE, KeyError):  # what is damaged is no evidence of a look
            identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
            if digest_of(identity) not in recorded:
                raise LostLedgerError(
                    f"{path} rests on a look at held-out targets that {root / LEDGER_NAME} does not hold; "
                    "put the ledger back, or delete that evaluation, and run this again"
                )


def openings_of(ground: Ground, dataset: DatasetManifest) -> list[Opening]:
    """Every recorded look at the truths of any test episode of ``dataset``, by any backbone, oldest first."""
    return _looks_at(
        _recorded(ground.workspace), dataset.split_digest, {*dataset.samples_per_episode[Split.TEST]}
    )


def _looks_at(recorded: Iterable[Opening], split_digest: str, held_out: Collection[str]) -> list[Opening]:
    return [
        each
        for each in recorded
        if each.split_digest == split_digest or not {*held_out}.isdisjoint(each.test_episodes)
    ]


def _recorded(workspace: Workspace) -> list[Opening]:
    path = ledger_of(workspace)
    return list(read_rows(path, Opening)) if path.is_file() else []


def opening_is_recorded(workspace: Workspace, evaluation: Mapping[str, Any]) -> Check:
    """Whether the ledger holds the look that an ``evaluation.json`` rests on, and as many as that counted."""
    split, checkpoint = evaluation["split_digest"], evaluation["checkpoint_digest"]
    recorded = _recorded(workspace)
    own = [each for each in recorded if (each.split_digest, each.checkpoint_digest) == (split, checkpoint)]
    looks = _looks_at(recorded, split, {episode for each in own for episode in each.test_episodes})
    counted = int(evaluation["seal_openings"])
    ok = bool(own) and len(looks) >= counted
    return Check(
        rule="opening_is_recorded",
        subject=LEDGER_NAME,
        expected=f"a row of checkpoint {checkpoint[:16]}, and {counted} looks at these episodes",
        found=f"{len(own)} of it, and {len(looks)} looks" + ("" if ok else _PUT_IT_BACK),
        ok=ok,
    )


def ledger_of(workspace: Workspace) -> Path:
    """One ledger per workspace: no rerun of a stage, setting or backbone can make it forget."""
    return workspace.root / LEDGER_NAME
