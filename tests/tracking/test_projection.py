"""MLflow shows what the journals say, however often and in whatever order they are projected."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import time

import pytest

from omni_mlflow.events import JOURNAL_NAME, Ended, Metrics, RunOutcome, Started, key_in, read_events
from omni_mlflow.spine.processes import this_process
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.failures import DeletedExperimentError
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.healing import heal_journals
from omni_mlflow.tracking.projection import Projection
from omni_mlflow.tracking.store_healing import StoreHealer


def finish(record, status="FINISHED", outcome=RunOutcome.OK, reason=""):
    record.ended(status, outcome, reason)
    record.close()


def test_a_journal_becomes_a_run(pipeline, tracker, store):
    main, train = pipeline
    report = tracker.project(store)
    assert (report.left, report.runs, report.failure, report.notes) == (0, 2, None, ())
    shown = tracker.dump(store)["runs"]
    run = shown[train.key]
    events = read_events(train.folder / JOURNAL_NAME)
    points = [event for event in events if isinstance(event, Metrics)]
    assert run["name"] == "train"
    assert run["experiment"] == "omni-mlflow"
    assert run["state"] == ("FINISHED", "active", events[0].at_ms, events[-1].at_ms)
    assert run["params"] == {"settings.lora.rank": "8", "settings.base.model": "tiny"}
    assert run["metrics"]["train/loss"] == [
        (1, points[0].at_ms, "1.0"),
        (2, points[1].at_ms, "0.5"),
        (3, points[2].at_ms, repr(1 / 3)),
    ]
    assert run["tags"]["mlflow.parentRunId"] == main.key
    assert run["tags"]["omni.upstream.main"] == main.key
    assert run["tags"]["omni.outcome"] == "ok"
    assert shown[main.key]["tags"]["omni.upstream.train"] == train.key
    assert sorted(run["artifacts"]) == ["checkpoint/adapter_config.json", "progress.jsonl"]


def test_a_split_is_an_input_dataset_with_its_profile_and_columns(pipeline, tracker, store):
    _, train = pipeline
    tracker.project(store)
    [(name, digest, profile, schema, source, tags)] = tracker.dump(store)["runs"][train.key]["datasets"]
    assert (name, digest, tags) == ("episodes-train", "5ad5fbe0f8d7", [("mlflow.data.context", "train")])
    assert json.loads(profile) == {"num_episodes": 14, "source": "samples/train.jsonl"}
    assert json.loads(schema) == {"mlflow_colspec": [{"type": "string", "name": "id", "required": True}]}
    assert json.loads(source) == {"uri": "samples/train.jsonl"}


def test_projecting_again_changes_nothing(pipeline, tracker, store):
    first = tracker.project(store)
    shown = tracker.dump(store)
    assert tracker.project(store).projected == 0
    tracker.forget()
    assert tracker.project(store).projected == first.projected
    assert tracker.dump(store) == shown


def test_only_new_rows_of_a_running_stage_are_sent(begin, tracker, store):
    stage = begin("train")
    stage.metrics({"train/loss": 2.0}, step=1)
    assert tracker.project(store).projected == 2
    stage.metrics({"train/loss": 1.0}, step=2)
    assert tracker.project(store).projected == 1


def test_row_by_row_and_all_at_once_end_the_same(pipeline, tracker, workspace):
    at_once, by_row = tracker.new_store("at_once"), tracker.new_store("by_row")
    tracker.project(at_once)
    journals = {path: path.read_bytes().splitlines(keepends=True) for path in workspace.rglob(JOURNAL_NAME)}
    tracker.forget()
    for length in range(1, max(map(len, journals.values())) + 1):
        for path, lines in journals.items():
            path.write_bytes(b"".join(lines[:length]))
        assert tracker.project(by_row).failure is None
    assert tracker.dump(by_row) == tracker.dump(at_once)


def test_a_resumed_run_is_one_run_without_a_second_point(begin, tracker, store):
    first = begin("train")
    first.metrics({"train/loss": 2.0}, step=1)
    finish(first, "KILLED", RunOutcome.KILLED, "stopped by Interrupted")
    tracker.project(store)
    killed = tracker.dump(store)["runs"][first.key]
    assert killed["state"][0] == "KILLED"
    assert killed["tags"]["mlflow.note.content"] == "stopped by Interrupted"
    again = begin("train")
    again.metrics({"train/loss": 2.5}, step=1)
    again.metrics({"train/loss": 1.0}, step=2)
    tracker.project(store)
    running = tracker.dump(store)["runs"][first.key]
    assert running["state"][0] == "RUNNING"
    assert "omni.outcome" not in running["tags"]
    finish(again)
    tracker.project(store)
    [(key, done)] = tracker.dump(store)["runs"].items()
    assert key == first.key
    assert done["state"][0] == "FINISHED"
    assert done["tags"]["omni.outcome"] == "ok"
    assert "mlflow.note.content" not in done["tags"]
    assert [(step, value) for step, _, value in done["metrics"]["train/loss"]] == [(1, "2.0"), (2, "1.0")]


def test_a_store_that_is_another_one_under_the_old_address_gets_everything_again(pipeline, tracker, store):
    first = tracker.project(store)
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("update experiments set creation_time = creation_time + 1")
    assert tracker.project(store).projected == first.projected


def test_a_moved_stage_folder_is_still_the_same_run(begin, tracker, store, workspace):
    stage = begin("index")
    stage.metrics({"windows": 12.0})
    tracker.project(store)
    finish(stage)
    (workspace / "superseded").mkdir()
    stage.folder.rename(workspace / "superseded" / "shared-index-0a")
    begin("index")
    tracker.project(store)
    shown = tracker.dump(store)["runs"]
    assert len(shown) == 2
    assert shown[stage.key]["state"][0] == "FINISHED"


def test_a_file_deleted_or_changed_by_hand_is_noted_and_nothing_is_left(begin, tracker, store):
    stage = begin("split")
    for name in ("gone.json", "changed.json", "kept.json"):
        (stage.folder / name).write_text("{}")
        stage.artifacts([stage.folder / name])
    (stage.folder / "gone.json").unlink()
    (stage.folder / "changed.json").write_text('{"by": "hand"}')
    report = tracker.project(store)
    assert report.complete
    assert [note.rpartition("/")[2] for note in report.notes] == [
        "gone.json of run split is gone; the tracker does not show it",
        "changed.json of run split changed since it was announced; the tracker does not show it",
    ]
    assert sorted(tracker.dump(store)["runs"][stage.key]["artifacts"]) == ["kept.json"]


def test_an_unreadable_journal_is_named_and_costs_no_other_run(begin, tracker, store):
    bad, good = begin("guard"), begin("index")
    with (bad.folder / JOURNAL_NAME).open("a") as journal:
        journal.write("edited by hand\n")
    finish(good)
    report = tracker.project(store)
    assert report.left == 1
    assert report.failure is not None
    assert "guard/journal.jsonl" in report.failure
    assert "not JSON" in report.failure
    assert tracker.dump(store)["runs"][good.key]["state"][0] == "FINISHED"


def test_a_finished_run_stays_finished_when_its_journal_is_damaged_later(begin, tracker, store):
    run = begin("guard")
    run.metrics({"num_errors": 0.0})
    finish(run)
    tracker.project(store)
    rows = run.folder.joinpath(JOURNAL_NAME).read_text().splitlines()
    run.folder.joinpath(JOURNAL_NAME).write_text("\n".join([rows[0], "", *rows[1:]]) + "\n")
    report = tracker.project(store)
    assert f"{run.folder / JOURNAL_NAME}:2: " in str(report.failure)
    assert tracker.dump(store)["runs"][run.key]["state"][0] == "FINISHED"
    run.folder.joinpath(JOURNAL_NAME).write_text("\n".join(rows) + "\n")
    assert tracker.project(store).failure is None


def test_a_copy_of_a_stage_s_folder_shows_nothing_of_its_own(begin, tracker, store, workspace):
    """Copied as a backup after a kill; then the run went on and was finished."""
    train = begin("trivial/train")
    train.metrics({"train/loss": 1.0}, step=1)
    train.ended("KILLED", RunOutcome.KILLED, "died")
    train.close()
    shutil.copytree(train.folder, train.folder.with_name("train_before"))
    again = begin("trivial/train")
    again.metrics({"train/loss": 0.5}, step=2)
    finish(again)
    for _ in range(2):
        report = tracker.project(store)
        assert report.failure is None
        assert "train_before is a copy of " in " ".join(report.notes)
        [run] = tracker.dump(store)["runs"].values()
        assert run["state"][0] == "FINISHED"
    with (train.folder.with_name("train_before") / JOURNAL_NAME).open("a") as journal:
        journal.write("{}\n")  # whatever becomes of the copy
    assert heal_journals(workspace) == []
    tracker.project(store)
    assert tracker.dump(store)["runs"][train.key]["state"][0] == "FINISHED"


def test_a_copy_of_a_workspace_left_behind_does_not_undo_how_the_run_ended(begin, tracker, store, workspace):
    """Copied while the stage ran; both share the store. Whoever heals the copy finds a dead process."""
    train = begin("trivial/train")
    train.metrics({"train/loss": 1.0}, step=1)
    tracker.project(store)
    left = workspace.with_name("left_behind")
    shutil.copytree(workspace, left)
    finish(train)
    tracker.project(store)
    opened = connect(store, workspace=left)
    for healed in (False, True):
        if healed:
            with (left / "trivial/train" / JOURNAL_NAME).open("a") as journal:
                ended = Ended(at_ms=train_ms(train) + 1, status="KILLED", outcome="killed", reason="died")
                journal.write(ended.model_dump_json() + "\n")
        Projection(opened, Follower(left, store=opened.address)).run_pass()
        assert tracker.dump(store)["runs"][train.key]["state"][0] == "FINISHED"


def goes_on(workspace, process, *, at_ms, ends, outer=None):
    """As if another process went on with the training of a workspace from its first step to the third."""
    key = key_in(workspace / "trivial/train" / JOURNAL_NAME)
    steps = [Metrics(at_ms=at_ms + step, step=step, values={"train/loss": 1 / step}) for step in (2, 3)]
    end = [Ended(at_ms=at_ms + 9, **ends)] if ends else []
    enters = Started(at_ms=at_ms, key=key, name="train", process=process, mlflow_run_id=outer)
    write(workspace, [enters, *steps, *end])


def write(workspace, rows):
    with (workspace / "trivial/train" / JOURNAL_NAME).open("a") as journal:
        journal.writelines(row.model_dump_json() + "\n" for row in rows)


@pytest.fixture(params=["killed"])
def began(request, monkeypatch):
    """What became of the process that began the training: killed, or alive."""
    process = ALIVE if request.param == "alive" else ALIVE.model_copy(update={"start_ticks": 2})
    monkeypatch.setattr("omni_mlflow.record.this_process", lambda: process)


@pytest.fixture
def copies(begin, began, tracker, store, workspace):
    """A training after its first step, its workspace, and a copy of that."""
    train = begin("trivial/train")
    train.metrics({"train/loss": 1.0}, step=1)
    tracker.project(store)
    copy = workspace.with_name("copy")
    shutil.copytree(workspace, copy)
    return workspace, copy


ALIVE = this_process()
FAR = ALIVE.model_copy(update={"host": "node-17"})
DEAD = ALIVE.model_copy(update={"start_ticks": 1})
DONE = {"status": "FINISHED", "outcome": "ok"}
CUT = {"status": "KILLED", "outcome": "killed", "reason": "stopped by SIGTERM"}


def shown_from(workspace, store):
    """As ``omni-mlflow sync`` does, and once more."""
    projection = Projection(connect(store, workspace=workspace), Follower(workspace, store=store))
    projection.distrust()
    for _ in range(2):
        projection.run_pass()
    return projection.report(failure=None)


@pytest.mark.parametrize("owner", [(DEAD, DONE, "finished"), (FAR, None, "is at work on")])
def test_a_run_that_one_copy_of_a_workspace_has_gets_no_point_from_another(copies, tracker, store, owner):
    process, ends, did = owner
    first, second = copies
    now_ms = time.time_ns() // 1_000_000
    goes_on(first, process, at_ms=now_ms, ends=ends)
    assert shown_from(first, store).notes == ()
    before = tracker.dump(store)
    goes_on(second, FAR.model_copy(update={"pid": 7}), at_ms=now_ms + 60_000, ends=DONE)
    for _ in range(2):
        report = shown_from(second, store)
        assert report.complete
        assert "everything but the runs that a note names (1)" in report.sentence
        [note] = report.notes
        assert f"process {process.pid} on {process.host} {did} its run " in note
        assert "MLFLOW_TRACKING_URI=... omni-mlflow sync" in note
        assert tracker.dump(store) == before
    assert shown_from(first, store).notes == ()
    alone = tracker.new_store("alone")
    assert shown_from(second, alone).notes == ()
    [run] = tracker.dump(alone)["runs"].values()
    assert [step for step, *_ in run["metrics"]["train/loss"]] == [1, 2, 3]


OTHER = DEAD.model_copy(update={"pid": 7})


@pytest.mark.parametrize("began", ["alive"], indirect=True)
def test_a_workspace_copied_while_its_run_goes_on_adds_no_point_to_it(copies, tracker, store):
    """Both journals know the process that the store names; in the copy another one follows it."""
    first, second = copies
    now_ms = time.time_ns() // 1_000_000
    goes_on(second, OTHER, at_ms=now_ms + 60_000, ends=DONE)
    before = tracker.dump(store)
    [note] = shown_from(second, store).notes
    assert f"process {ALIVE.pid} on {ALIVE.host} is at work on its run " in note
    assert tracker.dump(store) == before
    steps = [Metrics(at_ms=now_ms + step, step=step, values={"train/loss": 1 / step}) for step in (2, 3)]
    write(first, [*steps, Ended(at_ms=now_ms + 9, **DONE)])
    assert shown_from(first, store).notes == ()
    whole = tracker.dump(store)
    [run] = whole["runs"].values()
    assert (run["state"][0], [step for step, *_ in run["metrics"]["train/loss"]]) == ("FINISHED", [1, 2, 3])
    [note] = shown_from(second, store).notes
    assert "finished its run " in note
    assert tracker.dump(store) == whole


@pytest.mark.parametrize("began", ["alive"], indirect=True)
def test_the_copy_has_the_run_once_the_process_it_was_copied_from_failed(copies, tracker, store):
    first, second = copies
    now_ms = time.time_ns() // 1_000_000
    goes_on(second, OTHER, at_ms=now_ms + 60_000, ends=DONE)
    shown_from(second, store)
    write(first, [Ended(at_ms=now_ms, **CUT)])
    shown_from(first, store)
    assert shown_from(second, store).notes == ()
    [run] = tracker.dump(store)["runs"].values()
    assert (run["state"][0], [step for step, *_ in run["metrics"]["train/loss"]]) == ("FINISHED", [1, 2, 3])


@pytest.mark.parametrize("began", ["alive"], indirect=True)
def test_a_copy_that_goes_on_under_mlflow_run_leaves_the_other_run_as_it_is(copies, tracker, store):
    _, second = copies
    client = tracker.client(store)
    tags = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "train"}
    outer = client.create_run("1", tags=tags).info.run_id
    [before] = client.search_runs(["1"], "tags.`omni.process` != ''")
    now_ms = time.time_ns() // 1_000_000
    goes_on(second, OTHER, at_ms=now_ms + 60_000, ends=DONE, outer=outer)
    assert shown_from(second, store).notes == ()
    assert client.get_run(before.info.run_id).to_dictionary() == before.to_dictionary()
    assert client.get_run(outer).info.status == "FINISHED"


FAILED = {"status": "FAILED", "outcome": "failed", "reason": "no such file"}


@pytest.mark.parametrize("ends", [CUT, FAILED], ids=["killed", "failed"])
@pytest.mark.parametrize("first_s", [-60, 60], ids=["the later one was shown first", "the earlier one was"])
def test_two_copies_that_are_synced_in_turns_agree_on_the_one_that_ended_last(
    copies, tracker, store, ends, first_s
):
    now_ms = time.time_ns() // 1_000_000
    for number, (copy, process) in enumerate(zip(copies, (DEAD, OTHER), strict=True)):
        reason = {**ends, "reason": f"copy {number}"}
        goes_on(copy, process, at_ms=now_ms + (1_000 * first_s if number else 0), ends=reason)
        assert shown_from(copy, store).complete
    for copy in copies:
        shown_from(copy, store)
    settled = tracker.dump(store)
    [run] = settled["runs"].values()
    last = 1 if first_s > 0 else 0
    assert (run["state"][0], run["tags"]["mlflow.note.content"]) == (ends["status"], f"copy {last}")
    assert [step for step, *_ in run["metrics"]["train/loss"]] == [1, 2, 3]
    for copy in (*copies, *copies):
        assert shown_from(copy, store).projected == 0
    assert tracker.dump(store) == settled


def test_a_copy_that_did_nothing_takes_no_run_back(copies, tracker, store):
    went_on, idle = copies
    now_ms = time.time_ns() // 1_000_000
    for copy in copies:
        write(copy, [Ended(at_ms=now_ms, **FAILED)])
        shown_from(copy, store)
    goes_on(went_on, OTHER, at_ms=now_ms + 1_000, ends=CUT)
    shown_from(went_on, store)
    before = tracker.dump(store)
    for copy in (idle, went_on, idle):
        assert shown_from(copy, store).projected == 0
    assert tracker.dump(store) == before


def test_a_restored_store_whose_run_another_lineage_was_longer_in_loses_no_point(copies, tracker, store):
    """More rows, and fewer steps: the run was entered and killed again and again before the backup."""
    original, restored = copies
    now_ms = time.time_ns() // 1_000_000
    key = key_in(original / "trivial/train" / JOURNAL_NAME)
    for turn in range(4):
        at_ms = now_ms + 10 * turn
        enters = Started(at_ms=at_ms, key=key, name="train", process=DEAD)
        write(original, [enters, Ended(at_ms=at_ms + 5, **CUT)])
    shown_from(original, store)
    database = store.removeprefix("sqlite:///")
    backup = shutil.copy(database, f"{database}.backup")
    goes_on(restored, OTHER, at_ms=now_ms + 60_000, ends=None)
    projection = opened(store, restored)
    projection.run_pass()
    shutil.copy(backup, database)
    steps = [Metrics(at_ms=now_ms + 61_000, step=4, values={"train/loss": 0.1})]
    write(restored, steps)
    projection.run_pass()
    write(restored, [Ended(at_ms=now_ms + 62_000, **DONE)])
    projection.run_pass()
    [run] = tracker.dump(store)["runs"].values()
    assert (run["state"][0], [step for step, *_ in run["metrics"]["train/loss"]]) == (
        "FINISHED",
        [1, 2, 3, 4],
    )


@pytest.mark.parametrize("owner", [(DEAD, DONE), (FAR, None)], ids=["finished", "out of sight"])
def test_a_person_frees_a_run_of_a_copy_that_is_gone(copies, tracker, store, owner):
    lost, backup = copies
    now_ms = time.time_ns() // 1_000_000
    goes_on(lost, owner[0], at_ms=now_ms, ends=owner[1])
    shown_from(lost, store)
    goes_on(backup, OTHER, at_ms=now_ms + 60_000, ends=DONE)
    [note] = shown_from(backup, store).notes
    [run] = tracker.client(store).search_runs(["1"])
    assert f"Where that copy is gone: omni-mlflow heal --end {run.info.run_id}, then omni-mlflow sync" in note
    healer = StoreHealer(tracker.client(store), project=backup, shared=False)
    assert healer.end(run.info.run_id) is None
    assert len(healer.healed) == 1
    assert shown_from(backup, store).notes == ()
    [shown] = tracker.dump(store)["runs"].values()
    assert (shown["state"][0], [step for step, *_ in shown["metrics"]["train/loss"]]) == (
        "FINISHED",
        [1, 2, 3],
    )


@pytest.mark.parametrize("ends", [CUT, None])
def test_a_workspace_from_a_backup_goes_on_with_a_run_whose_process_is_gone(copies, tracker, store, ends):
    lost, backup = copies
    now_ms = time.time_ns() // 1_000_000
    goes_on(lost, DEAD, at_ms=now_ms, ends=ends)
    shown_from(lost, store)
    goes_on(backup, FAR, at_ms=now_ms + 60_000, ends=DONE)
    report = shown_from(backup, store)
    assert (report.complete, report.notes) == (True, ())
    [run] = tracker.dump(store)["runs"].values()
    assert run["state"][0] == "FINISHED"
    assert [step for step, *_ in run["metrics"]["train/loss"]] == [1, 2, 3], "what it has is not added again"


def test_a_resume_after_the_clock_was_set_back_is_shown_as_it_goes(begin, tracker, store, monkeypatch):
    clock_ms = [1_800_000_120_000]
    monkeypatch.setattr("omni_mlflow.record.now_ms", lambda: clock_ms[0])
    train = begin("trivial/train")
    finish(train, "FAILED", RunOutcome.FAILED, "CUDA out of memory")
    tracker.project(store)
    clock_ms[0] -= 120_000
    again = begin("trivial/train")
    tracker.project(store)
    assert tracker.dump(store)["runs"][train.key]["state"][0] == "RUNNING"
    finish(again, "KILLED", RunOutcome.KILLED, "stopped by SIGTERM")
    tracker.project(store)
    assert tracker.dump(store)["runs"][train.key]["state"][0] == "KILLED"


def train_ms(record):
    [started] = [event for event in read_events(record.folder / JOURNAL_NAME) if isinstance(event, Started)]
    return started.at_ms


def test_numbers_and_names_that_mlflow_does_not_take_are_shown_all_the_same(begin, tracker, store):
    stage = begin("train")
    stage.metrics({"train/loss": math.inf, "acc@5 (%)": 0.5, "/../odd//": math.nan})
    stage.params({"": "", "long": "x" * 7000})
    assert tracker.project(store).failure is None
    run = tracker.dump(store)["runs"][stage.key]
    assert {key: points[0][2] for key, points in run["metrics"].items()} == {
        "train/loss": "nan",
        "acc_5 ___": "0.5",
        "_/odd": "nan",
    }
    assert run["params"] == {"_": "", "long": "x" * 6000}


def test_the_runs_of_a_backbone_have_one_colour_and_those_of_another_have_another(begin, tracker, store):
    for backbone in ("qwen3_omni_lora", "cosmos_world_model", "policy_vla_branch"):
        for stage in ("train", "gate"):
            begin(f"{backbone}/{stage}").tags({"omni.backbone": backbone})
    tracker.project(store)
    colours = {}
    for run in tracker.dump(store)["runs"].values():
        colours.setdefault(run["tags"]["omni.backbone"], set()).add(run["tags"]["mlflow.runColor"])
    assert all(len(each) == 1 for each in colours.values())
    assert len(set.union(*colours.values())) == 3


def test_a_deleted_experiment_says_how_to_bring_it_back(begin, tracker, store):
    begin("index")
    tracker.client(store).delete_experiment("1")
    with pytest.raises(DeletedExperimentError, match="mlflow experiments restore --experiment-id 1"):
        tracker.project(store)


def test_a_workspace_without_journals_has_nothing_to_project(tracker, store):
    assert tracker.project(store).complete


def test_thousands_of_rows_reach_the_store_in_parts(begin, tracker, store):
    stage = begin("train")
    for step in range(4500):
        stage.metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    finish(stage)
    assert tracker.project(store).projected == 4502
    [run] = tracker.client(store).search_runs(["1"])
    history = tracker.client(store).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == list(range(4500))


@pytest.fixture
def cut_and_resumed(begin):
    """Cut a journal to a share of its bytes, as a broken disk would, and enter the run again up to a step."""

    def resume(stage, *, share, last):
        stage.close()
        path = stage.folder / JOURNAL_NAME
        os.truncate(path, int(path.stat().st_size * share))
        again = begin("train")
        for step in range(1, last + 1):
            again.metrics({"train/loss": 1 / step, "time/step_s": 7.0}, step=step)
        return again

    return resume


def trained(begin, *, steps):
    stage = begin("train")
    for step in range(1, steps + 1):
        stage.metrics({"train/loss": 1 / step, "time/step_s": 0.1 * step}, step=step)
    stage.results({"val/accuracy": 0.25})
    return stage


def steps_of(tracker, store, key):
    shown = tracker.dump(store)["runs"]
    assert list(shown) == [key]
    return {name: [step for step, *_ in points] for name, points in shown[key]["metrics"].items()}


@pytest.mark.parametrize("last", [4, 30], ids=["shorter than the watermark", "longer than the watermark"])
def test_a_journal_that_lost_projected_rows_doubles_no_point_when_the_run_goes_on(
    tracker, store, begin, cut_and_resumed, last
):
    stage = trained(begin, steps=20)
    tracker.project(store)
    again = cut_and_resumed(stage, share=0.4, last=last)
    again.results({"val/accuracy": 0.5})
    finish(again)
    assert tracker.project(store).complete
    steps = list(range(1, max(20, last) + 1))
    assert steps_of(tracker, store, stage.key) == {
        "train/loss": steps,
        "time/step_s": steps,
        "val/accuracy": [0, 0],
    }
    [run] = tracker.client(store).search_runs(["1"])
    assert (run.info.status, run.data.metrics["val/accuracy"]) == ("FINISHED", 0.5)


def test_a_cut_journal_that_was_projected_once_more_doubles_no_point_later(
    begin, tracker, store, cut_and_resumed
):
    stage = trained(begin, steps=20)
    tracker.project(store)
    again = cut_and_resumed(stage, share=0.4, last=2)
    tracker.project(store)  # from here on its watermark fits, and the store still holds more than it
    for step in range(3, 31):
        again.metrics({"train/loss": 1 / step, "time/step_s": 7.0}, step=step)
    finish(again)
    assert tracker.project(store).complete
    steps = list(range(1, 31))
    shown = steps_of(tracker, store, stage.key)
    assert shown == {"train/loss": steps, "time/step_s": steps, "val/accuracy": [0]}


def test_a_journal_cut_while_it_is_followed_doubles_no_point(
    begin, tracker, store, workspace, cut_and_resumed
):
    opened = connect(store, workspace=workspace)
    projection = Projection(opened, Follower(workspace, store=opened.address))
    stage = trained(begin, steps=20)
    projection.run_pass()
    again = cut_and_resumed(stage, share=0.4, last=25)
    again.results({"val/accuracy": 0.25})
    projection.run_pass()
    steps = list(range(1, 26))
    assert steps_of(tracker, store, stage.key) == {
        "train/loss": steps,
        "time/step_s": steps,
        "val/accuracy": [0],
    }


@pytest.mark.parametrize("looked_at_first", [False, True])
def test_a_curve_that_began_again_ends_with_its_new_values(begin, tracker, store, looked_at_first):
    """However the rows come: a restored store is looked at, and has the old point or both of them."""
    stage = begin("train")
    stage.curve({"train/loss": 2.0}, step=1)
    stage.metrics({"time/step_s": 0.1}, step=1)
    tracker.project(store)
    stage.curve({"train/loss": 3.0}, step=1)
    stage.metrics({"time/step_s": 0.2}, step=1)
    for _ in range(2):
        if looked_at_first:
            tracker.forget()
        tracker.project(store)
        found = tracker.dump(store)["runs"][stage.key]["metrics"]
        by_time = sorted(found["train/loss"], key=lambda point: point[1])
        assert [value for _, _, value in by_time] == ["2.0", "3.0"]
        assert [value for _, _, value in found["time/step_s"]] == ["0.1"]


def opened(store, workspace):
    return Projection(connect(store, workspace=workspace), Follower(workspace, store=store))


def steps_at(stage, steps):
    for step in steps:
        stage.metrics({"train/loss": 1 / step, "time/step_s": 0.1}, step=step)


def test_a_workspace_from_a_backup_made_while_its_run_went_on_doubles_no_point(
    begin, tracker, store, workspace
):
    """The process that the store names, and the rows that the watermark tells of, are known to it."""
    lost = begin("train")
    steps_at(lost, range(1, 10))
    tracker.project(store)
    backup = workspace.with_name("backup")
    shutil.copytree(workspace, backup)
    steps_at(lost, range(10, 17))
    tracker.project(store)
    lost.close()
    shutil.rmtree(workspace)
    backup.rename(workspace)
    again = begin("train")
    steps_at(again, range(5, 13))
    tracker.project(store)
    steps_at(again, range(13, 21))
    again.results({"val/accuracy": 0.5})
    finish(again)
    assert tracker.project(store).notes == ()
    every = list(range(1, 21))
    shown = steps_of(tracker, store, again.key)
    assert shown == {"train/loss": every, "time/step_s": every, "val/accuracy": [0]}
    assert tracker.dump(store)["runs"][again.key]["state"][0] == "FINISHED"


@pytest.fixture
def restored(begin, tracker, store, workspace, tmp_path):
    """A run that goes on while its store is put back to what it was some steps ago, and its projection."""
    stage, projection = begin("train"), opened(store, workspace)
    steps_at(stage, range(1, 5))
    projection.run_pass()
    shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "backup.db")
    steps_at(stage, range(5, 9))
    stage.params({"rank": 8})
    projection.run_pass()
    shutil.copy(tmp_path / "backup.db", store.removeprefix("sqlite:///"))
    return stage, projection


def no_answer(*_, **__):
    raise ConnectionError("the server is away")


def assert_all_shown(tracker, store, stage, *, last):
    every = list(range(1, last + 1))
    assert steps_of(tracker, store, stage.key) == {"train/loss": every, "time/step_s": every}
    assert tracker.dump(store)["runs"][stage.key]["params"] == {"rank": "8"}


def test_a_store_put_back_while_a_stage_runs_gets_what_it_lost_from_a_sync(
    restored, tracker, store, workspace
):
    stage, _ = restored
    assert shown_from(workspace, store).projected > 0
    assert_all_shown(tracker, store, stage, last=8)
    assert shown_from(workspace, store).projected == 0


def test_a_store_put_back_while_a_stage_runs_gets_what_it_lost_from_the_next_process(
    restored, tracker, store
):
    stage, _ = restored
    steps_at(stage, [9])
    tracker.project(store)
    assert_all_shown(tracker, store, stage, last=9)


@pytest.mark.parametrize("sign", ["heartbeat", "end", "failure", "rows"])
def test_a_store_put_back_while_a_stage_runs_gets_what_it_lost_from_the_same_process(
    restored, tracker, store, monkeypatch, sign
):
    stage, projection = restored
    if sign == "heartbeat":
        monkeypatch.setattr("omni_mlflow.tracking.signs_of_life.BEAT_EVERY_S", 0.0)
    elif sign == "end":
        finish(stage)
    elif sign == "rows":
        steps_at(stage, [9])
        projection.run_pass()
        steps_at(stage, [10])
    else:
        steps_at(stage, [9])
        with monkeypatch.context() as away:
            away.setattr(projection._store.client, "log_batch", no_answer)
            with pytest.raises(ConnectionError):
                projection.run_pass()
    for _ in range(2):
        projection.run_pass()
    assert_all_shown(tracker, store, stage, last={"failure": 9, "rows": 10}.get(sign, 8))


def runs_named_in_vain(tracker, store):
    """Tags of runs that name a run which the store does not have."""
    runs = tracker.client(store).search_runs(["1"])
    there = {run.info.run_id for run in runs}
    return [
        (run.info.run_name, tag)
        for run in runs
        for tag, value in run.data.tags.items()
        if (tag == "mlflow.parentRunId" or tag.startswith("omni.upstream.")) and value not in there
    ]


@pytest.fixture
def nested(begin, store):
    """A pipeline's run, of which select is over and train goes on, and an empty store to put back."""
    backup = shutil.copy(store.removeprefix("sqlite:///"), f"{store.removeprefix('sqlite:///')}.backup")
    main = begin("runs/0a1b", name="main")
    select = begin("select", parent=main)
    finish(select)
    train = begin("trivial/train", parent=main)
    train.upstream({"select": select.key})
    train.params(
        {"settings.base.model": "a name of many words, as long as a path to a folder may well be " * 2}
    )
    steps_at(train, [1])
    return main, train, backup


@pytest.mark.parametrize("looks", ["the same process", "a sync"])
def test_a_store_from_before_the_whole_pipeline_gets_its_runs_back_below_each_other(
    nested, begin, tracker, store, looks
):
    main, train, backup = nested
    workspace = main.folder.parents[1]
    projection = opened(store, workspace)
    projection.run_pass()
    shutil.copy(backup, store.removeprefix("sqlite:///"))
    steps_at(train, [2])
    if looks == "the same process":
        projection.run_pass()
    finish(train)
    gate = begin("trivial/gate", parent=main)
    gate.upstream({"train": train.key})
    finish(gate)
    finish(main)
    if looks == "the same process":
        projection.run_pass()
    else:
        shown_from(workspace, store)
    assert runs_named_in_vain(tracker, store) == []
    found = tracker.dump(store)
    assert found == tracker_dump_of_new_store(tracker, workspace)
    assert shown_from(workspace, store).projected == 0


def test_a_doubt_outlives_a_store_that_goes_away_while_it_is_looked_into(
    nested, tracker, store, workspace, monkeypatch
):
    _, train, backup = nested
    projection = opened(store, workspace)
    projection.run_pass()
    shutil.copy(backup, store.removeprefix("sqlite:///"))
    steps_at(train, [2])
    with monkeypatch.context() as away:
        away.setattr("omni_mlflow.tracking.projection.look_at", no_answer)
        with pytest.raises(ConnectionError):
            projection.run_pass()
    projection.run_pass()
    assert runs_named_in_vain(tracker, store) == []
    assert len(tracker.dump(store)["runs"]) == 3


def tracker_dump_of_new_store(tracker, workspace):
    new = tracker.new_store("fault_free")
    shown_from(workspace, new)
    return tracker.dump(new)


def test_runs_that_name_a_purged_one_name_the_one_made_in_its_place(nested, tracker, store, workspace):
    main, train, _ = nested
    for record in (train, main):
        finish(record)
    shown_from(workspace, store)
    client = tracker.client(store)
    [lost] = [run for run in client.search_runs(["1"]) if run.info.run_name == "main"]
    client.delete_run(lost.info.run_id)
    client._tracking_client.store._hard_delete_run(lost.info.run_id)
    assert runs_named_in_vain(tracker, store) != []
    assert shown_from(workspace, store).projected > 0
    assert runs_named_in_vain(tracker, store) == []
    assert shown_from(workspace, store).projected == 0


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.REFUSED])
def test_a_store_from_before_a_run_was_entered_again_gets_how_it_ended_at_last(
    begin, tracker, store, workspace, outcome
):
    stage = begin("train")
    steps_at(stage, [1])
    finish(stage, "FAILED", outcome, "no such file")
    tracker.project(store)
    database = store.removeprefix("sqlite:///")
    backup = shutil.copy(database, f"{database}.backup")
    again = begin("train")
    steps_at(again, [2, 3])
    finish(again, "KILLED", RunOutcome.KILLED, "stopped by SIGTERM")
    tracker.project(store)
    wanted = tracker.dump(store)
    shutil.copy(backup, database)
    assert shown_from(workspace, store).projected > 0
    found = tracker.dump(store)
    [run], [as_before] = found["runs"].values(), wanted["runs"].values()
    assert (run["state"], run["tags"], run["metrics"]) == tuple(
        as_before[key] for key in ("state", "tags", "metrics")
    )
    assert shown_from(workspace, store).projected == 0


def test_a_store_from_before_its_run_was_entered_gets_the_first_rows_too(
    begin, tracker, store, workspace, tmp_path
):
    tags = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "train"}
    outer = tracker.client(store).create_run("1", tags=tags).info.run_id
    database = store.removeprefix("sqlite:///")
    shutil.copy(database, tmp_path / "backup.db")
    stage = begin("train", outer=outer)
    steps_at(stage, [1])
    tracker.project(store)
    shutil.copy(tmp_path / "backup.db", database)
    steps_at(stage, [2])
    stage.params({"rank": 8})
    tracker.project(store)
    assert_all_shown(tracker, store, stage, last=2)


def test_a_run_tells_how_far_it_is_shown_without_a_request_of_its_own(begin, tracker, store, workspace):
    stage, projection = begin("train"), opened(store, workspace)
    projection.run_pass()
    steps_at(stage, range(1, 5))
    client, requests = projection._store.client, []
    real = client.log_batch
    client.log_batch = lambda *given, **values: (requests.append(sorted(values)), real(*given, **values))[1]
    projection.run_pass()
    assert requests == [["metrics", "tags"]]
    [run] = client.search_runs(["1"])
    assert run.data.tags["omni.projected"].startswith("5 rows, ")
