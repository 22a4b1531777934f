"""What an earlier attempt left in a stage's folder is gone on with, moved aside, or removed."""

from __future__ import annotations

import pytest

from omni_mlflow.leftovers import make_room
from omni_mlflow.record import RunRecord
from omni_mlflow.stages import STAGES
from omni_mlflow.workspace import Workspace


@pytest.fixture
def begun(tmp_path):
    """A training that failed in the middle of its work."""
    folder = Workspace(tmp_path).stage("train", backbone="trivial")
    record = RunRecord(folder.path)
    record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
    record.tags({"omni.fingerprint": "this"})
    record.close()
    for name in ("progress.jsonl", "failure.txt", ".state.json.7.tmp"):
        (folder.path / name).write_text("...")
    return folder


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_a_resumable_stage_goes_on_without_the_traceback_of_its_failure(begun):
    make_room(STAGES["train"], begun, "this")
    assert names(begun) == ["journal.jsonl", "progress.jsonl"]


def test_a_stage_that_cannot_resume_keeps_only_its_journal(begun):
    make_room(STAGES["export"], begun, "this")
    assert names(begun) == ["journal.jsonl"]


def test_other_work_moves_aside_whole_and_comes_back(begun):
    before = names(begun)
    make_room(STAGES["train"], begun, "other")
    assert names(begun) == []
    [aside] = (begun.path.parent / "superseded").iterdir()
    assert sorted(path.name for path in aside.iterdir()) == before
    begun.path.rmdir()
    make_room(STAGES["train"], begun, "this")
    assert names(begun) == ["journal.jsonl", "progress.jsonl"]
