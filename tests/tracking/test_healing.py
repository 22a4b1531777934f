"""A run whose process died is KILLED, with the reason; a run that is alive is left alone."""

from __future__ import annotations

import os
import time

from omni_mlflow.events import JOURNAL_NAME, Ended, RunOutcome, Started, read_events
from omni_mlflow.record import RESERVED_BYTES, RunRecord, reserve_of
from omni_mlflow.spine.processes import this_process
from omni_mlflow.tracking import heal, heal_journals

HOUR_MS = 3_600_000
DAY_S = 86_400


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
    assert heal_journals(workspace) == []  # it is alive
    stage.kill()
    stage.wait()
    [healed] = heal_journals(workspace)
    assert (healed.name, healed.key) == ("train", key)
    assert f"process {stage.pid} on " in healed.reason
    assert "died without ending this run (kill -9, out of memory or power loss)" in healed.reason
    assert heal_journals(workspace) == []
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
    heal_journals(workspace)
    ended = last_row(stage.folder)
    assert isinstance(ended, Ended)
    assert ended.at_ms - read_events(stage.folder / JOURNAL_NAME)[0].at_ms < 1000


def test_a_run_whose_journal_is_held_is_alive_whatever_its_process_looks_like(begin, workspace):
    stage = begin("index")
    rewrite_process(stage.folder, start_ticks=1)
    assert heal_journals(workspace) == []


def test_a_run_of_another_machine_is_dead_after_a_day_of_silence(begin, workspace):
    stage = begin("index")
    stage.close()
    rewrite_process(stage.folder, host="node-17")
    assert heal_journals(workspace) == []
    yesterday = time.time() - DAY_S - 60
    os.utime(stage.folder / JOURNAL_NAME, (yesterday, yesterday))
    assert [run.name for run in heal_journals(workspace)] == ["index"]


def test_an_ended_run_stays_as_it_ended(begin, workspace):
    stage = begin("index")
    stage.ended("FAILED", RunOutcome.REFUSED, "two rules broken")
    stage.close()
    assert heal_journals(workspace) == []


def test_a_torn_last_row_does_not_keep_a_run_from_being_healed(killed_stage, workspace, tracker, store):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    journal = workspace / "train" / JOURNAL_NAME
    with journal.open("ab") as rows:
        rows.write(b'{"event":"metr')
    [healed] = heal_journals(workspace)
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
    heal_journals(workspace)
    assert not kept.exists()


def test_heal_with_a_store_projects_what_it_healed(killed_stage, workspace, store, tracker):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    assert [run.key for run in heal(workspace, store=store).healed] == [key]
    assert tracker.dump(store)["runs"][key]["state"][0] == "KILLED"


def test_a_healed_stage_can_be_entered_again(killed_stage, workspace):
    stage, key = killed_stage
    stage.kill()
    stage.wait()
    heal_journals(workspace)
    record = RunRecord(workspace / "train")
    assert record.key == key
    record.close()
