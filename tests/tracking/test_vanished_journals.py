"""A journal that was moved or deleted while it was followed: nobody says that the store shows everything."""

from __future__ import annotations

import shutil

import pytest

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection
from omni_mlflow.tracking.projector import Projector


@pytest.fixture
def followed(begin, workspace, store):
    """A stage that works on, and the projection that shows it."""
    select, stage = begin("select"), begin("trivial/train")
    select.ended("FINISHED", RunOutcome.OK)
    stage.metrics({"train/loss": 1.0}, step=1)
    opened = connect(store, workspace=workspace)
    projection = Projection(opened, Follower(workspace, store=opened.address))
    projection.run_pass()
    return stage, projection


def looked_again(projection):
    projection.run_pass()
    return projection.report(failure=None)


@pytest.mark.parametrize("what", ["the workspace", "the stage's folder"])
def test_a_workspace_moved_while_its_stage_runs_is_told_and_shown_by_a_sync_in_its_new_place(
    followed, workspace, tracker, store, what
):
    stage, projection = followed
    moved = workspace if what == "the workspace" else stage.folder
    moved.rename(workspace.parent / "moved")
    stage.metrics({"train/loss": 0.5}, step=2)
    report = looked_again(projection)
    assert not report.complete
    said = (
        f"the workspace {workspace}, or a folder of it, was moved or deleted: no journal is left of train ("
    )
    assert report.sentence.startswith(said)
    assert report.sentence.endswith("Where the workspace lies now: omni-mlflow sync --workspace THERE")
    assert "shows everything" not in report.sentence
    place = workspace.parent / "moved" if what == "the workspace" else workspace
    if what != "the workspace":
        (workspace.parent / "moved").rename(stage.folder)
        assert looked_again(projection).complete
    opened = connect(store, workspace=place)
    assert looked_again(Projection(opened, Follower(place, store=opened.address))).complete
    points = tracker.dump(store)["runs"][stage.key]["metrics"]["train/loss"]
    assert [step for step, _, _ in points] == [1, 2]


def test_a_folder_that_is_set_aside_or_was_shown_to_its_end_has_not_vanished(followed, workspace):
    stage, projection = followed
    (workspace / "trivial" / "superseded").mkdir()
    stage.folder.rename(workspace / "trivial" / "superseded" / "train-0a")
    shutil.rmtree(workspace / "select")
    assert looked_again(projection).complete


def test_rows_that_wait_and_a_journal_that_vanished_are_both_told(followed, begin):
    stage, projection = followed
    shutil.rmtree(stage.folder)
    bad = begin("guard")
    with (bad.folder / "journal.jsonl").open("a") as journal:
        journal.write("edited by hand\n")
    sentence = looked_again(projection).sentence
    assert sentence.startswith("1 journal rows are not in the tracking store: ")
    assert "no journal is left of train (" in sentence


def test_the_final_pass_looks_twice_before_it_says_that_a_journal_vanished(
    followed, workspace, store, monkeypatch
):
    stage, _ = followed
    projector = Projector(workspace, store=store, project=workspace.parent)
    projector.run_pass()
    stage.folder.rename(workspace.parent / "on_its_way")

    def wait(seconds):
        if seconds > 0:
            (workspace.parent / "on_its_way").rename(stage.folder)

    monkeypatch.setattr("omni_mlflow.tracking.projector.time.sleep", wait)
    assert projector.finish().complete


def test_what_was_there_before_the_store_answered_is_missed_too(begin, workspace, store, monkeypatch):
    stage = begin("train")

    def slowly(*given, **values):
        stage.folder.rename(workspace.parent / "moved")
        return connect(*given, **values)

    monkeypatch.setattr("omni_mlflow.tracking.projector.connect", slowly)
    monkeypatch.setattr("omni_mlflow.tracking.projector._LAST_PAUSES_S", (0.0,))
    assert (
        "no journal is left of train ("
        in Projector(workspace, store=store, project=workspace.parent).finish().sentence
    )
