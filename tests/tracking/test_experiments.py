"""A workspace stays with the experiment that its runs are in; any other one goes to the one of our name."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.failures import DeletedExperimentError
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.named_runs import run_named
from omni_mlflow.tracking.projection import Projection


@pytest.fixture
def renamed(pipeline, tracker, store):
    """A client of a store in which somebody renamed the experiment that a pipeline's runs are in."""
    assert tracker.project(store).complete
    client = tracker.client(store)
    client.rename_experiment("1", "my project")
    return client


def shown_from(workspace, store):
    opened = connect(store, workspace=workspace)
    projection = Projection(opened, Follower(workspace, store=opened.address))
    projection.distrust()
    projection.run_pass()
    return projection.report(failure=None)


def experiments_of_runs(tracker, store):
    return {key: run["experiment"] for key, run in tracker.dump(store)["runs"].items()}


def test_a_workspace_goes_on_in_an_experiment_that_somebody_renamed(renamed, begin, pipeline, tracker, store):
    main, train = pipeline
    assert shown_from(main.folder.parents[1], store).projected == 0
    gate = begin("qwen3_omni_lora/gate", parent=main)
    gate.upstream({"train": train.key})
    tracker.project(store)
    assert len(renamed.search_runs(["1"])) == 3
    assert experiments_of_runs(tracker, store) == dict.fromkeys([main.key, train.key, gate.key], "my project")
    found, problems = run_named(renamed, main.key)
    assert problems == []
    tags = {run.info.run_name: run.data.tags for run in renamed.search_runs(["1"])}
    assert tags["gate"]["mlflow.parentRunId"] == found.info.run_id


def test_another_workspace_gets_an_experiment_of_our_name(renamed, begin, workspace, store, tmp_path):
    begin("../elsewhere/index")
    shown_from(tmp_path / "elsewhere", store)
    assert [run.info.run_name for run in renamed.search_runs(["2"])] == ["index"]
    assert renamed.get_experiment("2").name == "omni-mlflow"
    shown_from(workspace, store)
    assert len(renamed.search_runs(["1"])) == 2


@pytest.mark.parametrize("there", ["another experiment", "no experiment"])
def test_an_experiment_that_only_has_the_number_is_not_the_workspaces_own(
    pipeline, tracker, store, workspace, there
):
    shown_from(workspace, store)
    shutil.copy(tracker.new_store("new").removeprefix("sqlite:///"), store.removeprefix("sqlite:///"))
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        if there == "another experiment":
            database.execute(
                "update experiments set name = 'theirs', creation_time = 1 where experiment_id = 1"
            )
        else:
            database.execute("delete from experiments where experiment_id = 1")
    shown_from(workspace, store)
    main, train = pipeline
    assert experiments_of_runs(tracker, store) == dict.fromkeys([main.key, train.key], "omni-mlflow")


def test_a_renamed_experiment_that_was_deleted_says_how_to_bring_it_back(renamed, begin, tracker, store):
    renamed.delete_experiment("1")
    begin("index")
    told = "'my project' was deleted; bring it back with: mlflow experiments restore --experiment-id 1"
    with pytest.raises(DeletedExperimentError, match=told):
        tracker.project(store)
    assert renamed.get_experiment_by_name("omni-mlflow") is None
