"""Which run of the store is meant by the one that a person names: of a merge, of several backbones."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from omni_mlflow.context import OuterRun
from omni_mlflow.pipeline import run_main
from omni_mlflow.spine.types import broken
from omni_mlflow.tracking import sync
from omni_mlflow.tracking.connection import connect, open_client
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.named_runs import run_meant
from omni_mlflow.tracking.projection import Projection
from tests.conftest import PROJECT, TRIVIAL, Place
from tests.judging import judge, run_of, verdicts
from tests.test_cut_journals import check_once
from tests.workbench import Workbench


@pytest.fixture
def own_environment():
    """Opening a store sets variables for its process; a test leaves none of them behind."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def show(place: Place) -> None:
    """Bring everything that the journals say to the store."""
    store = connect(place.store, workspace=place.workspace)
    projection = Projection(store, Follower(place.workspace, store=store.address))
    projection.run_pass()
    assert projection.report(failure=None).left == 0


def test_a_run_of_merge_shows_the_work_of_evaluate(place, own_environment):
    """Both fill one folder, and the run is named after the stage that did."""
    run_id = run_of(place, "evaluate").info.run_id
    open_client(place.store).set_tag(run_id, "omni.stage", "merge")
    assert broken(judge(place, run_id)) == []
    assert broken(judge(place, run_of(place, "main").info.run_id)) == []


@pytest.mark.slow
def test_a_merge_is_judged_as_the_evaluation_that_it_is(place, monkeypatch, own_environment):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    check_once(monkeypatch)
    bench = Workbench(place, [])
    bench.forget_evaluation()
    for offset in (0, 1):
        bench.shard(offset, 2)
    bench.run("merge")
    assert bench.run("merge").reused
    show(place)
    done, reused = [run for run in place.runs() if run.data.tags["omni.stage"] == "merge"]
    assert "omni.reused" in reused.data.tags
    for run in (done, reused):
        assert broken(judge(place, run.info.run_id)) == []
    open_client(place.store).log_metric(reused.info.run_id, "action_accuracy", 0.5)
    [refused] = broken(judge(place, reused.info.run_id))
    assert refused.subject == f"evaluate run {reused.info.run_id}: action_accuracy"


@pytest.fixture
def around(place):
    """Runs below one that stands around several backbones, each as its stage and its backbone."""
    client = open_client(place.store)
    main = run_of(place, "main")
    outer = client.create_run(main.info.experiment_id, tags={"omni.stage": "backbones"}).info.run_id

    def below(run_id: str) -> str:
        client.set_tag(run_id, "mlflow.parentRunId", outer)
        return outer

    def other(**tags: str) -> str:
        named = {f"omni.{key}": value for key, value in tags.items()}
        run = client.create_run(main.info.experiment_id, tags=named, run_name=tags["stage"])
        below(run.info.run_id)
        return run.info.run_id

    return below, other


@pytest.mark.parametrize("stage", ["main", "evaluate"])
def test_the_run_around_several_backbones_stands_for_the_one_that_is_asked_for(
    place, around, own_environment, stage
):
    below, other = around
    outer = below(run_of(place, stage).info.run_id)
    other(stage=stage, backbone="another")
    other(stage="export", outcome="refused")
    assert broken(judge(place, outer)) == []


def test_where_none_below_it_is_of_the_backbone_it_is_said_which_can_be_named(place, around, own_environment):
    below, other = around
    one = other(stage="train", backbone="another")
    outer = below(one)
    found = {each.rule: each.found for each in broken(judge(place, outer))}
    assert found["run_stands_for_this_backbone"] == (
        f"it stands around the runs of several backbones; name one of those below it: train ({one})"
    )


def test_a_run_around_nothing_says_that_the_work_was_done_before(place, around, own_environment):
    below, other = around
    one = other(stage="train", backbone="another")
    outer = below(one)
    open_client(place.store).delete_run(one)
    [found] = [each.found for each in broken(judge(place, outer)) if each.subject == outer]
    assert found.endswith("all work was done before: name the run that did it")


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with a contract of the trivial backbone beside one of ours."""
    contracts = tmp_path / "project" / "contracts"
    contracts.mkdir(parents=True)
    shutil.copy(TRIVIAL / "trivial.yaml", contracts)
    shutil.copy(PROJECT / "contracts" / "qwen3_omni_lora.yaml", contracts)
    return contracts.parent


def test_with_several_backbones_the_run_is_judged_for_each(finished, project, own_environment):
    run_id = run_of(finished, "main").info.run_id
    backbones = ("trivial", "qwen3_omni_lora")
    mine, foreign = verdicts(finished, run_id, project=project, contract=None, backbones=backbones)
    assert (mine.backbone, mine.ok, mine.run) == ("trivial", True, run_id)
    assert (foreign.backbone, foreign.ok, foreign.run) == ("qwen3_omni_lora", False, run_id)
    wrong = [each for each in broken(foreign.rules) if each.rule == "run_is_of_this_backbone"]
    assert {(each.expected, each.found) for each in wrong} == {("qwen3_omni_lora", "trivial")}


@pytest.mark.slow
def test_what_mlflow_run_prints_for_several_backbones_leads_to_each(empty, monkeypatch, own_environment):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    client = open_client(empty.store)
    made = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "main"}
    printed = client.create_run(client.create_experiment("mine"), tags=made).info
    context = Workbench(empty, []).context()
    context = replace(context, outer=OuterRun(printed.run_id, printed.experiment_id))
    other = replace(context.bound, contract=context.bound.contract.model_copy(update={"id": "other"}))
    run_main([context.bound, other], context, [])
    sync(empty.workspace, store=empty.store)
    for backbone in ("trivial", "other"):
        meant, problems = run_meant(client, printed.run_id, backbone=backbone)
        assert problems == []
        assert meant.info.run_name == f"main {backbone}"
