"""A run whose process died is KILLED, with the reason; a run that is alive is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from omni_mlflow.events import JOURNAL_NAME, Ended, RunOutcome, Started, read_events
from omni_mlflow.record import RESERVED_BYTES, RunRecord, now_ms, reserve_of
from omni_mlflow.spine.processes import this_process
from omni_mlflow.tracking import heal, healing
from omni_mlflow.tracking.healing import heal_store

HOUR_MS = 3_600_000
DAY_S = 86_400


@pytest.fixture
def killed_stage(workspace):
    """A stage whose process got kill -9 in the middle of its work."""
    program = (
        "import pathlib, time; from omni_mlflow.record import RunRecord\n"
        f"record = RunRecord(pathlib.Path({str(workspace)!r}) / 'train')\n"
        "record.started('train', parent=None, mlflow_run_id=None, mlflow_experiment_id=None)\n"
        "record.metrics({'train/loss': 2.0}, step=1)\n"
        "print(record.key, flush=True); time.sleep(60)\n"
    )
    stage = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    key = stage.stdout.readline().strip()
    yield stage, key
    stage.kill()
    stage.wait()


def last_row(folder):
    return read_events(folder / JOURNAL_NAME)[-1]


def rewrite_process(folder, **changes):
    """Make the journal's only row that of another process."""
    [started] = read_events(folder / JOURNAL_NAME)
    assert isinstance(started, Started)
    process = this_process().model_copy(update=changes)
    row = started.model_copy(update={"process": process}).model_dump_json()
    (folder / JOURNAL_NAME).write_text(row + "\n")


def test_a_killed_stage_is_healed_once_and_shown_as_killed(killed_stage, workspace, tracker, store):
    stage, key = killed_stage
    assert heal(workspace, store=None) == []  # it is alive
    stage.kill()
    stage.wait()
    [healed] = heal(workspace, store=None)
    assert (healed.name, healed.key) == ("train", key)
    assert f"process {stage.pid} on " in healed.reason
    assert "died without ending this run (kill -9, out of memory or power loss)" in healed.reason
    assert heal(workspace, store=None) == []
    tracker.project(store)
    run = tracker.dump(store)["runs"][key]
    assert run["state"][0] == "KILLED"
    assert run["tags"]["omni.outcome"] == "killed"
    assert run["tags"]["mlflow.note.content"] == healed.reason


def test_a_healed_run_ended_when_it_gave_its_last_sign(begin, workspace):
    stage = begin("index")
    stage.close()
    rewrite_process(stage.folder, start_ticks=1)
    an_hour_ago_ns = time.time_ns() - HOUR_MS * 1_000_000
    os.utime(stage.folder / JOURNAL_NAME, ns=(an_hour_ago_ns, an_hour_ago_ns))
    heal(workspace, store=None)
    ended = last_row(stage.folder)
    assert isinstance(ended, Ended)
    assert ended.at_ms - read_events(stage.folder / JOURNAL_NAME)[0].at_ms < 1000


def test_a_run_whose_journal_is_held_is_alive_whatever_its_process_looks_like(begin, workspace):
    stage = begin("index")
    rewrite_process(stage.folder, start_ticks=1)
    assert heal(workspace, store=None) == []


def test_a_run_of_another_machine_is_dead_after_a_day_of_silence(begin, workspace):
    stage = begin("index")
    stage.close()
    rewrite_process(stage.folder, host="node-17")
    assert heal(workspace, store=None) == []
    yesterday = time.time() - DAY_S - 60
    os.utime(stage.folder / JOURNAL_NAME, (yesterday, yesterday))
    assert [run.name for run in heal(workspace, store=None)] == ["index"]


def test_an_ended_run_stays_as_it_ended(begin, workspace):
    stage = begin("index")
    stage.ended("FAILED", RunOutcome.REFUSED, "two rules broken")
    stage.close()
    assert heal(workspace, store=None) == []


def test_a_torn_last_row_does_not_keep_a_run_from_being_healed(killed_stage, workspace, tracker, store):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    journal = workspace / "train" / JOURNAL_NAME
    with journal.open("ab") as rows:
        rows.write(b'{"event":"metr')
    [healed] = heal(workspace, store=None)
    assert isinstance(last_row(workspace / "train"), Ended)
    torn = journal.with_name("journal.jsonl.torn")
    assert torn.read_bytes() == b'{"event":"metr\n'
    told = f"left unfinished by a process that died; its 14 bytes are kept in {torn}"
    assert healed.reason.endswith(f"the last row of journal.jsonl was {told}")
    tracker.project(store)
    assert tracker.dump(store)["runs"][key]["tags"]["omni.torn.journal.jsonl"].endswith(told)


def test_healing_takes_the_room_that_was_kept_for_the_last_row(killed_stage, workspace):
    stage, _ = killed_stage
    stage.kill()
    stage.wait()
    kept = reserve_of(workspace / "train" / JOURNAL_NAME)
    assert kept.stat().st_size == RESERVED_BYTES
    heal(workspace, store=None)
    assert not kept.exists()


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
    [healed] = heal_store(opened, project=tmp_path, entered=(), shared=False)
    assert (healed.run_id, healed.key, healed.name) == (zombie, None, "train")
    run = opened.get_run(zombie)
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("KILLED", "killed")
    assert run.data.tags["mlflow.note.content"].startswith("no stage ever entered this run")


def test_where_another_machine_may_be_making_its_environment_an_hour_is_waited(tracker, store, tmp_path):
    opened = tracker.client(store)
    make_zombie(opened, tmp_path, **MINUTES_AGO)
    zombie = make_zombie(opened, tmp_path, age_ms=2 * HOUR_MS)
    healed = heal_store(opened, project=tmp_path, entered=(), shared=True)
    assert [run.run_id for run in healed] == [zombie]


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
    monkeypatch.setattr(healing, "_UNENTERED_S", -1)  # as if two minutes had passed
    opened = tracker.client(store)
    older = make_zombie(opened, tmp_path, **MINUTES_AGO)
    younger = make_zombie(opened, tmp_path, age_ms=0)
    healed = heal_store(opened, project=tmp_path, entered=(), shared=False)
    assert [run.run_id for run in healed] == [older]
    mlflow_run.kill()
    mlflow_run.wait()
    healed = heal_store(opened, project=tmp_path, entered=(), shared=False)
    assert [run.run_id for run in healed] == [younger]


def test_a_run_that_a_stage_enters_after_it_was_given_up_is_running_again(begin, tracker, store, tmp_path):
    opened = tracker.client(store)
    given_up = make_zombie(opened, tmp_path, **MINUTES_AGO)
    heal_store(opened, project=tmp_path, entered=(), shared=False)
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
    make_zombie(opened, tmp_path, age_ms=old, **{"omni.stage": "train"})
    carried = make_zombie(opened, tmp_path, age_ms=old)
    holder = subprocess.Popen(["sleep", "60"], env={**os.environ, "MLFLOW_RUN_ID": carried})
    try:
        assert heal_store(opened, project=tmp_path, entered={entered}, shared=False) == []
    finally:
        holder.kill()
        holder.wait()


def test_heal_with_a_store_projects_what_it_healed(killed_stage, workspace, store, tracker):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    assert [run.key for run in heal(workspace, store=store)] == [key]
    assert tracker.dump(store)["runs"][key]["state"][0] == "KILLED"


def test_a_healed_stage_can_be_entered_again(killed_stage, workspace):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    heal(workspace, store=None)
    record = RunRecord(workspace / "train")
    assert record.key == key
    record.close()
