"""RUNNING runs that nobody will end: those that are dead are ended in the store, the others are listed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from omni_mlflow.events import JOURNAL_NAME, Ended, RunOutcome
from omni_mlflow.journal import Journal
from omni_mlflow.record import now_ms
from omni_mlflow.spine.processes import this_process
from omni_mlflow.tracking import heal, launchers, store_healing
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection
from omni_mlflow.tracking.store_healing import WATCH_S, StoreHealer
from tests.conftest import PROJECT

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def look(client, project, *, entered=(), shared=False):
    healer = StoreHealer(client, project=project, shared=shared)
    healer.look(entered=entered, now_s=0.0)
    return healer


def make_zombie(client, project, *, age_ms, **tags):
    """A run as ``mlflow run`` leaves it when it dies before the stage starts."""
    of_project = {"mlflow.source.type": "PROJECT", "mlflow.source.name": f"file://{project}"}
    entry = {"mlflow.project.entryPoint": "train"}
    run = client.create_run("0", start_time=now_ms() - age_ms, tags={**of_project, **entry, **tags})
    return run.info.run_id


MINUTES_AGO = {"age_ms": 180_000}


def test_a_run_that_mlflow_run_left_without_a_stage_is_ended_in_the_store(tracker, store, tmp_path):
    opened = tracker.client(store)
    zombie = make_zombie(opened, tmp_path, **MINUTES_AGO)
    [healed] = look(opened, tmp_path).healed
    assert (healed.run_id, healed.key, healed.name) == (zombie, None, "train")
    run = opened.get_run(zombie)
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("KILLED", "killed")
    assert run.data.tags["mlflow.note.content"].startswith("no stage ever entered this run")


def test_a_run_with_last_words_that_nobody_ended_is_ended_with_them_at_once(tracker, store, tmp_path):
    opened = tracker.client(store)
    words = {"omni.stage": "train", "omni.outcome": "killed", "mlflow.note.content": "stopped by SIGTERM"}
    zombie = make_zombie(opened, tmp_path, age_ms=1000, **words)
    [healed] = look(opened, tmp_path).healed
    assert (healed.run_id, healed.reason) == (zombie, "stopped by SIGTERM")
    assert opened.get_run(zombie).info.status == "KILLED"


def test_a_person_ends_a_run_of_another_checkout_or_address_and_none_of_another_project(
    tracker, store, tmp_path
):
    opened = tracker.client(store)
    (tmp_path / "MLproject").write_text("name: ours")
    checkout, other = tmp_path / "checkout", tmp_path / "other"
    for folder, name in ((checkout, "ours"), (other, "theirs")):
        folder.mkdir()
        (folder / "MLproject").write_text(f"name: {name}")
    runs = {
        source: make_zombie(opened, tmp_path, **MINUTES_AGO, **{"mlflow.source.name": source})
        for source in (f"file://{checkout}", "git@example.org:ours.git", f"file://{other}")
    }
    healer = StoreHealer(opened, project=tmp_path, shared=False)
    *ours, foreign = [healer.end(run_id) for run_id in runs.values()]
    assert ours == [None, None]
    assert foreign is not None
    assert "was not made by this project" in foreign


def test_where_another_machine_may_be_making_its_environment_an_hour_is_waited(tracker, store, tmp_path):
    opened = tracker.client(store)
    make_zombie(opened, tmp_path, **MINUTES_AGO)
    zombie = make_zombie(opened, tmp_path, age_ms=2 * HOUR_MS)
    healed = look(opened, tmp_path, shared=True).healed
    assert [run.run_id for run in healed] == [zombie]


@pytest.mark.parametrize(("status", "outcome"), [("FAILED", "failed"), ("KILLED", "killed")])
def test_a_run_whose_command_died_before_its_journal_gets_a_reason(tracker, store, tmp_path, status, outcome):
    """``mlflow run`` ends it when its child is gone, and says nothing about why."""
    opened = tracker.client(store)
    silent = make_zombie(opened, tmp_path, **MINUTES_AGO)
    opened.set_terminated(silent, status, end_time=now_ms() - MINUTES_AGO["age_ms"])
    [healed] = look(opened, tmp_path).healed
    assert (healed.run_id, healed.name) == (silent, "train")
    run = opened.get_run(silent)
    assert (run.info.status, run.data.tags["omni.outcome"]) == (status, outcome)
    assert run.data.tags["mlflow.note.content"].startswith("no journal that can be seen from here names")
    assert look(opened, tmp_path).healed == []


def test_an_ended_run_that_is_young_finished_entered_or_not_ours_is_left_as_it_is(tracker, store, tmp_path):
    opened = tracker.client(store)
    long_ago = now_ms() - 2 * HOUR_MS
    entered = make_zombie(opened, tmp_path, age_ms=2 * HOUR_MS)
    finished = make_zombie(opened, tmp_path, age_ms=2 * HOUR_MS)
    foreign = make_zombie(opened, tmp_path / "another-project", age_ms=2 * HOUR_MS)
    young = make_zombie(opened, tmp_path, age_ms=2 * HOUR_MS)
    for run_id in (entered, foreign):
        opened.set_terminated(run_id, "FAILED", end_time=long_ago)
    opened.set_terminated(finished, "FINISHED", end_time=long_ago)
    opened.set_terminated(young, "FAILED")
    assert look(opened, tmp_path, entered={entered}).healed == []


@pytest.fixture
def mlflow_run():
    """A process that looks like ``mlflow run`` and began just now."""
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)", "mlflow", "run", "."]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_run_is_left_alone_while_an_mlflow_run_lives_that_may_have_made_it(
    mlflow_run, tracker, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_healing, "UNENTERED_S", -1)  # as if two minutes had passed
    opened = tracker.client(store)
    older = make_zombie(opened, tmp_path, **MINUTES_AGO)
    younger = make_zombie(opened, tmp_path, age_ms=0)
    healed = look(opened, tmp_path).healed
    assert [run.run_id for run in healed] == [older]
    mlflow_run.kill()
    mlflow_run.wait()
    healed = look(opened, tmp_path).healed
    assert [run.run_id for run in healed] == [younger]


def test_a_run_that_a_stage_enters_after_it_was_given_up_is_running_again(begin, tracker, store, tmp_path):
    opened = tracker.client(store)
    given_up = make_zombie(opened, tmp_path, **MINUTES_AGO)
    look(opened, tmp_path)
    begin("train", outer=given_up)
    tracker.project(store)
    run = opened.get_run(given_up)
    assert run.info.status == "RUNNING"
    assert not {"omni.outcome", "mlflow.note.content"} & set(run.data.tags)


def test_what_may_still_be_alive_or_is_not_ours_is_left_alone(tracker, store, tmp_path):
    opened = tracker.client(store)
    old = 2 * HOUR_MS
    entered = make_zombie(opened, tmp_path, age_ms=old)
    make_zombie(opened, tmp_path, age_ms=60_000)
    make_zombie(opened, tmp_path / "another-project", age_ms=old)
    make_zombie(opened, tmp_path, age_ms=old, **{"omni.run_key": "one"})
    carried = make_zombie(opened, tmp_path, age_ms=old)
    holder = subprocess.Popen(["sleep", "60"], env={**os.environ, "MLFLOW_RUN_ID": carried})
    try:
        assert look(opened, tmp_path, entered={entered}).healed == []
    finally:
        holder.kill()
        holder.wait()


def our_run(client, *, beat_ms, **changes):
    """A RUNNING run of another workspace, as a stage leaves it in the store."""
    process = this_process().model_copy(update=changes)
    tags = {"omni.run_key": "0a1b", "omni.process": process.model_dump_json()}
    run = client.create_run("1", start_time=beat_ms, run_name="train", tags=tags)
    return run.info.run_id


def test_a_killed_run_is_ended_though_its_workspace_is_gone(
    killed_stage, workspace, tracker, store, tmp_path
):
    stage, _ = killed_stage
    tracker.project(store)
    opened = tracker.client(store)
    [run] = opened.search_runs(["1"])
    stage.send_signal(signal.SIGSTOP)  # a stopped process lives
    [left] = look(opened, tmp_path).left
    assert (left.run_id, left.alive) == (run.info.run_id, True)
    assert f"process {stage.pid} on this machine works on it" in left.sentence
    stage.kill()
    stage.wait()
    shutil.rmtree(workspace)
    report = heal(tmp_path / "another-workspace", store=store)
    assert [healed.run_id for healed in report.healed] == [run.info.run_id]
    assert report.ok
    ended = opened.get_run(run.info.run_id)
    assert (ended.info.status, ended.data.tags["omni.outcome"]) == ("KILLED", "killed")
    assert f"process {stage.pid} on " in ended.data.tags["mlflow.note.content"]


def test_a_run_ended_in_the_store_is_finished_after_all_when_its_journal_says_so(
    killed_stage, workspace, tracker, store, tmp_path
):
    stage, key = killed_stage
    tracker.project(store)
    stage.kill()
    stage.wait()
    assert look(tracker.client(store), tmp_path).healed
    with Journal(workspace / "train" / JOURNAL_NAME) as journal:
        ended = Ended(at_ms=now_ms(), status="FINISHED", outcome=RunOutcome.OK)
        journal.append(ended.model_dump(mode="json"))
    tracker.project(store)
    shown = tracker.dump(store)
    assert shown["runs"][key]["state"][0] == "FINISHED"
    tracker.forget()
    undisturbed = tracker.new_store("undisturbed")
    tracker.project(undisturbed)
    assert shown == tracker.dump(undisturbed)


def test_a_run_ended_while_its_own_projector_still_follows_it_ends_as_its_journal_says(
    begin, workspace, tracker, store
):
    stage = begin("index")
    projection = Projection(connect(store, workspace=workspace), Follower(workspace, store=store))
    projection.run_pass()
    opened = tracker.client(store)
    [run] = opened.search_runs(["1"])
    opened.set_tag(run.info.run_id, "omni.outcome", "killed")
    opened.set_tag(run.info.run_id, "mlflow.note.content", "taken for dead")
    opened.set_terminated(run.info.run_id, "KILLED")
    stage.ended("FINISHED", RunOutcome.OK)
    projection.run_pass()
    [run] = opened.search_runs(["1"])
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("FINISHED", "ok")
    assert not {"mlflow.note.content", "omni.heartbeat"} & set(run.data.tags)


def test_a_living_run_that_another_machine_took_for_dead_is_running_again(begin, tracker, store):
    begin("index")
    tracker.project(store)
    opened = tracker.client(store)
    [run] = opened.search_runs(["1"])
    assert "omni.heartbeat" in run.data.tags
    opened.set_tag(run.info.run_id, "omni.outcome", "killed")
    opened.set_terminated(run.info.run_id, "KILLED")
    tracker.project(store)
    [run] = opened.search_runs(["1"])
    assert run.info.status == "RUNNING"
    assert "omni.outcome" not in run.data.tags


def test_a_run_whose_projector_still_lives_is_left_to_it(tracker, store, tmp_path):
    opened = tracker.client(store)
    our_run(opened, beat_ms=now_ms(), pid=999_999)
    line = ["import time; print(flush=True); time.sleep(60)", launchers.PROJECTOR, "w", "--parent", "999999"]
    projector = subprocess.Popen([sys.executable, "-c", *line], stdout=subprocess.PIPE)
    projector.stdout.readline()
    [left] = look(opened, tmp_path).left
    assert "its last rows are being brought over" in left.why
    projector.kill()
    projector.wait()
    assert len(look(opened, tmp_path).healed) == 1


def test_a_run_of_another_machine_is_ended_after_a_day_without_a_sign_and_without_a_heartbeat_now(
    tracker, store, tmp_path
):
    opened = tracker.client(store)
    silent = our_run(opened, beat_ms=now_ms() - DAY_MS - 60_000, host="node-17")
    recent = our_run(opened, beat_ms=now_ms() - HOUR_MS, host="node-17")
    # Its clock is a day and more behind ours, and it lives.
    late = our_run(opened, beat_ms=now_ms() - 2 * DAY_MS, host="node-18")
    healer = look(opened, tmp_path)
    assert {run.run_id for run in healer.left} == {silent, recent, late}
    assert healer.watches
    opened.set_tag(late, "omni.heartbeat", "2020-01-01T00:00:30+00:00")
    healer.look(entered=(), now_s=WATCH_S - 1)
    assert healer.healed == []
    healer.look(entered=(), now_s=WATCH_S)
    assert [run.run_id for run in healer.healed] == [silent]
    assert {run.run_id: run.acts_at_ms is not None for run in healer.left} == {recent: True, late: True}
    assert opened.get_run(silent).info.status == "KILLED"


def test_a_run_of_an_earlier_boot_of_this_machine_is_ended_after_a_watch(tracker, store, tmp_path):
    opened = tracker.client(store)
    booted_ms = round(psutil.boot_time() * 1000)
    before = our_run(opened, beat_ms=booted_ms - 60_000, boot_id="earlier")
    # A machine of the same name gave this sign after ours had started.
    namesake = our_run(opened, beat_ms=now_ms(), boot_id="another")
    healer = look(opened, tmp_path)
    assert healer.healed == []
    healer.look(entered=(), now_s=WATCH_S)
    assert [run.run_id for run in healer.healed] == [before]
    assert [run.run_id for run in healer.left] == [namesake]


def test_a_process_of_another_container_cannot_be_told_dead(tracker, store, tmp_path):
    opened = tracker.client(store)
    our_run(opened, beat_ms=now_ms(), pid=999_999, pid_namespace="pid:[1]")
    [left] = look(opened, tmp_path).left
    assert (left.alive, "cannot be seen from here" in left.why) == (False, True)


def test_a_run_entered_again_since_it_was_listed_is_not_ended(tracker, store, tmp_path):
    opened = tracker.client(store)
    run_id = our_run(opened, beat_ms=now_ms(), pid=999_999)

    class EnteredMeanwhile(type(opened)):
        def get_run(self, run_id):
            self.set_tag(run_id, "omni.process", this_process().model_dump_json())
            return super().get_run(run_id)

    assert look(EnteredMeanwhile(store), tmp_path).healed == []
    assert opened.get_run(run_id).info.status == "RUNNING"


def test_heal_lists_every_run_it_leaves_with_when_it_acts_and_ends_those_it_is_told_to(
    tracker, store, workspace, begin
):
    opened = tracker.client(store)
    elsewhere = our_run(opened, beat_ms=now_ms(), host="node-17")
    unentered = make_zombie(opened, PROJECT, age_ms=0)
    opened.create_run("0", run_name="of somebody else")
    begin("index")
    report = heal(workspace, store=store)
    assert not report.ok
    told = "\n".join(report.lines)
    assert f"train (run {elsewhere}) stays RUNNING: process {os.getpid()} on node-17 cannot be seen" in told
    assert "no stage has entered it yet; heal ends it from 20" in told
    assert f"if it is dead: omni-mlflow heal --end {unentered}" in told
    assert f"process {os.getpid()} on this machine works on it" in told
    assert "1 RUNNING runs were not made by this project" in told
    alive = next(run.run_id for run in report.running if run.alive)
    again = heal(workspace, store=store, end=[elsewhere, unentered, alive, "0a0a"])
    assert {run.run_id for run in again.healed} == {elsewhere, unentered}
    assert [run.run_id for run in again.running] == [alive]
    assert len(again.not_ended) == 2
    assert "stop that process" in again.not_ended[0]
    assert not again.ok
    assert heal(workspace, store=store).ok
    assert opened.get_run(elsewhere).info.status == opened.get_run(unentered).info.status == "KILLED"
