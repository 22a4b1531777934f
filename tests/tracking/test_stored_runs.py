"""Which MLflow run a journal is projected to: one that was there, one of ``mlflow run``, or a new one."""

from __future__ import annotations

import sqlite3
import time

import pytest

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection


def made_by_mlflow_run(client, entry_point, **given):
    """Make a run as ``mlflow run -e ENTRY_POINT`` does before it starts the stage."""
    tags = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": entry_point}
    return client.create_run("0", tags=tags, **given).info.run_id


def finish(record):
    record.ended("FINISHED", RunOutcome.OK)
    record.close()


def test_a_run_whose_creation_was_never_confirmed_is_found_again(begin, tracker, store):
    stage = begin("index")
    made = tracker.client(store).create_run("1", tags={"omni.run_key": stage.key})
    finish(stage)
    tracker.project(store)
    [run] = tracker.client(store).search_runs(["1"])
    assert run.info.run_id == made.info.run_id
    assert run.info.status == "FINISHED"


def test_a_run_of_mlflow_run_is_continued_and_named_after_its_stage(begin, tracker, store):
    quoted = {"data_root": "'two words'", "backbone": "qwen3_omni_lora"}
    unnamed = made_by_mlflow_run(tracker.client(store), "index", run_name="salty-crab-412")
    for key, value in quoted.items():
        tracker.client(store).log_param(unnamed, key, value)
    stage = begin("index", outer=unnamed)
    stage.params({"data_root": "two words", "backbone": "qwen3_omni_lora", "stride": 10})
    child = begin("export", parent=stage)
    report = tracker.project(store)
    shown = tracker.dump(store)["runs"]
    assert shown[stage.key]["name"] == "index"
    assert shown[stage.key]["params"] == {**quoted, "stride": "10"}
    assert shown[child.key]["experiment"] == shown[stage.key]["experiment"] == "Default"
    assert report.notes == ()


def test_a_name_that_a_person_gave_stays(begin, tracker, store):
    named = made_by_mlflow_run(tracker.client(store), "index", run_name="lr sweep 3")
    begin("index", outer=named)
    tracker.project(store)
    assert tracker.client(store).get_run(named).info.run_name == "lr sweep 3"


def test_a_parameter_that_differs_from_the_run_is_kept_and_noted(begin, tracker, store):
    made = made_by_mlflow_run(tracker.client(store), "train")
    tracker.client(store).log_param(made, "rank", "16")
    stage = begin("train", outer=made)
    stage.params({"rank": 8, "seed": 7})
    report = tracker.project(store)
    assert tracker.client(store).get_run(made).data.params == {"rank": "16", "seed": "7"}
    assert report.left == 0
    assert report.notes == (f"run {made} keeps parameter rank='16'; the journal says '8'",)


def test_a_run_resumed_by_a_new_mlflow_run_goes_on_in_that_one(begin, tracker, store):
    runs = [made_by_mlflow_run(tracker.client(store), "train") for _ in range(2)]
    first = begin("train", outer=runs[0])
    first.metrics({"train/loss": 2.0}, step=1)
    tracker.project(store)
    first.close()
    again = begin("train", outer=runs[1])
    again.metrics({"train/loss": 1.0}, step=2)
    finish(again)
    tracker.project(store)
    old, new = (tracker.client(store).get_run(run_id) for run_id in runs)
    assert (old.info.status, old.data.tags["omni.continued_in"]) == ("KILLED", runs[1])
    assert "omni.run_key" not in old.data.tags
    assert new.info.status == "FINISHED"
    assert [point.step for point in tracker.client(store).get_metric_history(runs[1], "train/loss")] == [1, 2]


def test_a_run_of_mlflow_run_that_is_in_another_store_is_made_anew(begin, tracker, store):
    stage = begin("train", outer="0a1b2c3d4e5f60718293a4b5c6d7e8f9")
    stage.metrics({"train/loss": 2.0}, step=1)
    report = tracker.project(store)
    assert report.complete
    [note] = report.notes
    assert "MLFLOW_RUN_ID=0a1b2c3d4e5f60718293a4b5c6d7e8f9, given to train " in note
    assert "is not in this store: the stage has a run of its own. Where the store was put back" in note
    assert note.endswith("nothing is left to do; where it was made in another store, unset MLFLOW_RUN_ID")
    assert "start the stage with: mlflow run" not in note
    assert tracker.dump(store)["runs"][stage.key]["state"][0] == "RUNNING"


@pytest.fixture
def stale_run(tracker, store, begin):
    """Return a function that makes a run of which MLFLOW_RUN_ID is left over, by what it is."""

    def make(kind):
        client = tracker.client(store)
        if kind == "not made by mlflow run":
            return client.create_run("0").info.run_id
        made = made_by_mlflow_run(client, "index" if kind == "another stage" else "train")
        if kind == "another workspace":
            client.set_tag(made, "omni.run_key", "0a1b")
        elif kind == "ended":
            client.set_terminated(made, "FAILED")
        elif kind == "ended by us":
            begin("elsewhere/train", outer=made).ended("FINISHED", RunOutcome.OK)
            tracker.project(store)
        return made

    return make


@pytest.mark.parametrize(
    "sign",
    [
        ("another stage", "was made for the entry point 'index'"),
        ("another workspace", "belongs to another stage or workspace"),
        ("not made by mlflow run", "was not made by mlflow run"),
        ("ended", "was FAILED already when the stage began"),
        ("ended by us", "belongs to another stage or workspace"),
    ],
)
def test_a_left_over_run_id_is_refused_in_words_and_its_run_stays_as_it_is(
    begin, tracker, store, stale_run, sign
):
    kind, why = sign
    client = tracker.client(store)
    stale = stale_run(kind)
    before = client.get_run(stale).to_dictionary()
    time.sleep(0.002)
    stage = begin("train", outer=stale)
    stage.metrics({"train/loss": 2.0}, step=1)
    report = tracker.project(store)
    [note] = report.notes
    assert f"MLFLOW_RUN_ID={stale}, given to train ({stage.folder}/journal.jsonl), {why}: it is left" in note
    assert report.complete
    assert client.get_run(stale).to_dictionary() == before
    assert "train/loss" in tracker.dump(store)["runs"][stage.key]["metrics"]


def test_a_run_of_mlflow_run_that_ended_before_the_store_came_back_is_still_the_stages_own(
    begin, tracker, store
):
    made = made_by_mlflow_run(tracker.client(store), "train")
    finish(begin("train", outer=made))
    time.sleep(0.002)
    tracker.client(store).set_terminated(made, "FINISHED")  # as mlflow run does when its stage exits
    report = tracker.project(store)
    assert report.notes == ()
    assert tracker.client(store).get_run(made).data.tags["omni.outcome"] == "ok"


def test_a_refused_run_stays_refused_when_the_stage_is_resumed(begin, tracker, store, stale_run):
    stale = stale_run("another stage")
    begin("train", outer=stale).close()
    tracker.project(store)
    begin("train", outer=made_by_mlflow_run(tracker.client(store), "train"))
    assert tracker.project(store).notes == ()
    run = tracker.client(store).get_run(stale)
    assert (run.info.status, "omni.continued_in" in run.data.tags) == ("RUNNING", False)


def test_a_run_purged_while_it_is_projected_is_made_anew_at_once(begin, tracker, store, workspace):
    stage = begin("index")
    opened = connect(store, workspace=workspace)
    projection = Projection(opened, Follower(workspace, store=store))
    projection.run_pass()
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        for table in ("tags", "runs"):
            database.execute(f"delete from {table}")
    stage.metrics({"windows": 12.0})
    projection.run_pass()
    assert projection.report(failure=None).complete
    assert tracker.dump(store)["runs"][stage.key]["metrics"]["windows"][0][2] == "12.0"


def test_a_run_deleted_in_the_tracker_stays_deleted_and_is_brought_up_to_date_when_restored(
    begin, tracker, store
):
    stage = begin("index")
    tracker.project(store)
    [run] = tracker.client(store).search_runs(["1"])
    tracker.client(store).delete_run(run.info.run_id)
    stage.metrics({"windows": 12.0})
    finish(stage)
    for _ in range(2):
        report = tracker.project(store)
        assert report.complete, "a run that a person deleted is no failure"
        [note] = report.notes
        assert f"deleted in the tracking store, and left so: index ({run.info.run_id})" in note
        assert "mlflow runs restore --run-id" in note
    assert tracker.dump(store)["runs"][stage.key]["state"][1] == "deleted"
    tracker.client(store).restore_run(run.info.run_id)
    assert tracker.project(store).notes == ()
    undisturbed = tracker.new_store("undisturbed")
    tracker.forget()
    tracker.project(undisturbed)
    assert tracker.dump(store) == tracker.dump(undisturbed)


def test_a_sync_names_the_runs_that_were_deleted_after_all_their_rows_were_shown(
    begin, tracker, store, workspace
):
    for name in ("select", "split"):
        finish(begin(name))
    tracker.project(store)
    split = next(run for run in tracker.client(store).search_runs(["1"]) if run.info.run_name == "split")
    tracker.client(store).delete_run(split.info.run_id)

    def synced():
        projection = Projection(connect(store, workspace=workspace), Follower(workspace, store=store))
        projection.distrust()
        projection.run_pass()
        return projection.report(failure=None)

    report = synced()
    assert report.complete
    assert report.sentence.startswith(
        "the tracking store shows everything but the runs that a note names (1): "
    )
    [note] = report.notes
    assert f"deleted in the tracking store, and left so: split ({split.info.run_id}). " in note
    assert tracker.client(store).get_run(split.info.run_id).info.lifecycle_stage == "deleted"
    tracker.client(store).restore_run(split.info.run_id)
    report = synced()
    assert report.sentence.startswith("the tracking store shows everything: 0 new rows")
    assert report.notes == ()


def test_a_run_deleted_and_restored_while_one_projector_follows_it_loses_nothing(
    begin, tracker, store, workspace
):
    stage = begin("index")
    projection = Projection(connect(store, workspace=workspace), Follower(workspace, store=store))
    projection.run_pass()
    [run] = tracker.client(store).search_runs(["1"])
    tracker.client(store).delete_run(run.info.run_id)
    stage.metrics({"windows": 12.0})
    projection.run_pass()  # the store refuses: what was remembered of the run is wrong
    projection.run_pass()
    assert projection.report(failure=None).complete
    tracker.client(store).restore_run(run.info.run_id)
    projection.run_pass()
    assert projection.report(failure=None).notes == ()
    assert tracker.dump(store)["runs"][stage.key]["metrics"]["windows"][0][2] == "12.0"


def test_a_deleted_upstream_run_is_named_and_still_referred_to(begin, tracker, store):
    split = begin("split")
    finish(split)
    tracker.project(store)
    [deleted] = tracker.client(store).search_runs(["1"])
    tracker.client(store).delete_run(deleted.info.run_id)
    train = begin("train")
    train.upstream({"split": split.key})
    finish(train)
    report = tracker.project(store)
    assert report.complete
    [note] = report.notes
    assert f"split ({deleted.info.run_id})" in note
    assert "What such a run made still holds in the workspace" in note
    assert tracker.dump(store)["runs"][train.key]["tags"]["omni.upstream.split"] == split.key


def test_an_upstream_run_that_is_gone_for_good_is_made_anew_as_it_was(begin, tracker, store):
    main = begin("runs/0a1b", name="main")
    split = begin("split", parent=main)
    split.metrics({"episodes": 6.0})
    finish(split)
    tracker.project(store)
    before = tracker.dump(store)["runs"][split.key]
    [run] = [each for each in tracker.client(store).search_runs(["1"]) if each.info.run_name == "split"]
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        for table in ("tags", "metrics", "latest_metrics", "runs"):
            database.execute(f"delete from {table} where run_uuid = ?", (run.info.run_id,))
    train = begin("train", parent=main)
    train.upstream({"split": split.key})
    tracker.project(store)
    assert tracker.project(store).complete
    shown = tracker.dump(store)["runs"]
    assert shown[split.key] == before
    assert shown[train.key]["tags"]["omni.upstream.split"] == split.key


def test_a_stage_resumed_by_another_pipeline_moves_below_it(begin, tracker, store):
    old, new = begin("runs/old", name="main"), begin("runs/new", name="main")
    stage = begin("index", parent=old)
    tracker.project(store)
    stage.close()
    begin("index", parent=new)
    tracker.project(store)
    assert tracker.dump(store)["runs"][stage.key]["tags"]["mlflow.parentRunId"] == new.key
