"""A training that is cut off and resumed shows the tracker what an undisturbed one shows."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.events import JOURNAL_NAME, Metrics, read_events
from omni_mlflow.record import RunRecord
from omni_mlflow.stages.train import StageTrainingLog

CHECKPOINT_EVERY = 4


@pytest.fixture
def train(tmp_path):
    """Train in a folder from its last checkpoint to ``last``; close nothing, as a power cut would not."""

    def steps(name, *, last, closes):
        record = RunRecord(tmp_path / name)
        record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
        run = SimpleNamespace(
            folder=record.folder, record=record, bar=TerminalBar(Console(file=io.StringIO()))
        )
        log = StageTrainingLog(run)
        state = log.resume / "state"
        first = int(state.read_text()) if state.is_file() else 0
        log.rewind(step=first)
        for step in range(first + 1, last + 1):
            log.progress("step", step=step, loss=1 / step)
            log.measured({"step_s": 0.1}, step=step)
            if step % CHECKPOINT_EVERY == 0:
                log.progress("checkpoint", step=step)
                state.write_text(str(step))
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


def points(folder):
    rows = [event for event in read_events(folder / JOURNAL_NAME) if isinstance(event, Metrics)]
    return sorted((key, row.step, value) for row in rows for key, value in row.values.items())
