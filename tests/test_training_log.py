"""A training that is cut off and resumed shows the tracker what an undisturbed one shows."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.events import JOURNAL_NAME, Metrics, read_events
from omni_mlflow.record import RunRecord
from omni_mlflow.stages.training_log import DivergedError, RewoundTooLateError, StageTrainingLog

CHECKPOINT_EVERY = 4


@pytest.fixture
def said():
    """What the training told a person."""
    return []


@pytest.fixture
def train(tmp_path, said):
    """Train in a folder from its last checkpoint to ``last``; close nothing, as a power cut would not."""

    def steps(name, *, last, closes, asks=True, loss=1.0):
        record = RunRecord(tmp_path / name)
        record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
        run = SimpleNamespace(
            folder=record.folder,
            record=record,
            bar=TerminalBar(Console(file=io.StringIO())),
            say=said.append,
            report_torn=lambda *_: None,
        )
        log = StageTrainingLog(run)
        first = log.rewind([int(state.name) for state in log.resume.iterdir()]) if asks else 0
        for step in range(first + 1, last + 1):
            log.consumed([f"sample-{step}"], step=step)
            log.progress("step", step=step, loss=loss / step)
            log.measured({"step_s": 0.1}, step=step)
            if step % CHECKPOINT_EVERY == 0:
                log.progress("checkpoint", step=step)
                (log.resume / str(step)).touch()
        if closes:
            log.close()
            record.close()
        return record.folder

    return steps


@pytest.fixture
def on_the_disk(monkeypatch):
    """How many bytes of each file a power cut leaves: those that the disk was waited for."""
    sizes = {}
    fsync = os.fsync

    def noting(file):
        sizes[Path(f"/proc/self/fd/{file}").resolve()] = os.fstat(file).st_size
        fsync(file)

    monkeypatch.setattr(os, "fsync", noting)
    return sizes


@pytest.mark.parametrize("cut_at", range(1, 12))
def test_a_power_cut_at_any_step_loses_no_point_of_the_curves(train, on_the_disk, tmp_path, cut_at):
    cut_off = train("cut", last=cut_at, closes=False)
    for journal in cut_off.glob("*.jsonl"):
        lost = journal.read_bytes()[: on_the_disk[journal]]
        journal.unlink()  # the dead process holds the lock of the old file
        journal.write_bytes(lost)
    resumed, undisturbed = train("cut", last=12, closes=True), train("whole", last=12, closes=True)
    assert points(resumed) == points(undisturbed)
    assert (resumed / "progress.jsonl").read_bytes() == (undisturbed / "progress.jsonl").read_bytes()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_in_words_and_leaves_its_last_state(train, loss):
    whole = train("run", last=CHECKPOINT_EVERY, closes=True)
    kept = [whole / name for name in ("progress.jsonl", "resume_points.json", "resume/4")]
    before = [path.read_bytes() for path in kept]
    told = rf"at step 5 \(step\) loss is {loss}\. Lower the learning rate.*goes on from the state of step 4"
    with pytest.raises(DivergedError, match=told):
        train("run", last=6, closes=False, loss=loss)
    assert [path.read_bytes() for path in kept] == before


LATEST = {11: "goes on from step 8", 7: "goes on from step 4", 3: "begins again"}
"""What a training with checkpoints at steps 4, 8 and 12 does that has lost the rows after a step."""


@pytest.mark.parametrize("name", ["progress.jsonl", "training_ledger.jsonl"])
@pytest.mark.parametrize("lost_after", LATEST)
def test_a_training_goes_on_from_the_last_checkpoint_whose_rows_are_all_there(train, said, name, lost_after):
    cut = train("cut", last=12, closes=True)
    rows = (cut / name).read_bytes().splitlines(keepends=True)
    (cut / name).write_bytes(b"".join(row for row in rows if json.loads(row)["step"] <= lost_after))
    resumed, undisturbed = train("cut", last=14, closes=True), train("whole", last=14, closes=True)
    [line] = said
    assert line.endswith(f"the checkpoint of step 12 builds on; training {LATEST[lost_after]}")
    assert points(resumed) == points(undisturbed)
    for each in ("progress.jsonl", "training_ledger.jsonl", "resume_points.json"):
        assert (resumed / each).read_bytes() == (undisturbed / each).read_bytes()


def test_a_training_does_not_build_on_rows_that_are_not_its_own(train, said):
    folder = train("cut", last=12, closes=True)
    ledger = folder / "training_ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("sample-6", "sample-9"))
    resumed, undisturbed = train("cut", last=12, closes=True), train("whole", last=12, closes=True)
    assert len(said) == 1
    assert (resumed / ledger.name).read_bytes() == (undisturbed / ledger.name).read_bytes()


def points(folder):
    rows = [event for event in read_events(folder / JOURNAL_NAME) if isinstance(event, Metrics)]
    return sorted((key, row.step, value) for row in rows for key, value in row.values.items())


@pytest.mark.parametrize("cut_at", [1, 5, 11])
def test_a_training_that_keeps_no_state_writes_after_a_cut_what_an_undisturbed_one_writes(train, cut_at):
    """Rows of the cut one stay in no journal: a ledger with a step twice would be refused for ever."""
    undisturbed = train("whole", last=11, closes=True, asks=False)
    train("cut", last=cut_at, closes=True, asks=False)
    resumed = train("cut", last=11, closes=True, asks=False)
    for name in ("progress.jsonl", "training_ledger.jsonl", "resume_points.json"):
        assert (resumed / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_asking_after_the_first_row_is_an_error_for_it_would_forget_that_row(tmp_path, train):
    folder = train("late", last=1, closes=True)
    run = SimpleNamespace(
        folder=folder, record=RunRecord(folder), bar=None, say=print, report_torn=lambda *_: None
    )
    log = StageTrainingLog(run)
    log.rewind(())
    with pytest.raises(RewoundTooLateError, match="before the first row"):
        log.rewind(())
    log.close()
    run.record.close()


def shown(folder):
    """By curve and step what a journal's readers are left with, and how many points it has."""
    found = points_in_order(folder)
    return {(key, step): value for key, step, value in found}, len(found)


def points_in_order(folder):
    rows = [event for event in read_events(folder / JOURNAL_NAME) if isinstance(event, Metrics)]
    return [(key, row.step, value) for row in rows for key, value in row.values.items()]


def losses(folder):
    rows = map(json.loads, (folder / "progress.jsonl").read_text().splitlines())
    return {("train/loss", row["step"]): row["loss"] for row in rows if row["event"] == "step"}


@pytest.mark.parametrize(("asks", "again"), [(False, 6), (True, 2)])
def test_a_curve_ends_with_the_values_of_the_attempt_that_ended(train, asks, again):
    """One without state begins again, another goes on from step 4: neither repeats its losses to the bit."""
    train("cut", last=6, closes=True, asks=asks)
    folder = train("cut", last=8, closes=True, asks=asks, loss=2.0)
    curves, number = shown(folder)
    expected = losses(folder)
    assert {point: value for point, value in curves.items() if point[0] == "train/loss"} == expected
    assert [expected["train/loss", step] for step in (6, 8)] == [2 / 6, 2 / 8]
    assert number == 8 + again + 8, (
        "eight losses, those that were replaced, eight times that nothing replaces"
    )


def test_a_step_that_is_told_twice_is_not_shown_again_at_each_resume(tmp_path):
    folder = tmp_path / "train"
    for _ in range(3):
        record = RunRecord(folder)
        record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
        run = SimpleNamespace(
            folder=folder,
            record=record,
            bar=TerminalBar(Console(file=io.StringIO())),
            say=print,
            report_torn=lambda *_: None,
        )
        log = StageTrainingLog(run)
        if not log.rewind([4] if (log.resume / "4").exists() else []):
            for loss in (1.0, 0.5):
                log.progress("step", step=4, loss=loss)
            log.progress("checkpoint", step=4)
            (log.resume / "4").touch()
        log.close()
        record.close()
    assert points_in_order(folder) == [("train/loss", 4, 1.0), ("train/loss", 4, 0.5)]
