"""A real tracking server is absent, killed and started again; the store ends as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise

import pytest

from omni_mlflow.events import JOURNAL_NAME, Metrics, RunOutcome, read_events
from omni_mlflow.tracking import start_projector, sync
from tests.mlflow_server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def start_stage(workspace):
    """A stage that makes a step every fifth of a second until the file ``enough`` appears."""
    program = f"""
import pathlib, time
from omni_mlflow.record import RunOutcome, RunRecord
folder = pathlib.Path({str(workspace)!r}) / "train"
record = RunRecord(folder)
record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
record.live_artifact(folder / "progress.jsonl")
step = 0
while not (folder / "enough").exists():
    time.sleep(0.2)
    record.metrics({{"train/loss": 1 / (step + 1)}}, step=step)
    with (folder / "progress.jsonl").open("a") as rows:
        rows.write(f"{{step}}\\n")
    step += 1
(folder / "metrics.json").write_text("{{}}")
record.artifacts([folder / "metrics.json"])
record.ended("FINISHED", RunOutcome.OK)
record.close()
"""
    return subprocess.Popen([sys.executable, "-c", program])


def longest_step_s(workspace):
    times = [e.at_ms for e in read_events(workspace / "train" / JOURNAL_NAME) if isinstance(e, Metrics)]
    return max(after - before for before, after in pairwise(times)) / 1000


def wait_for_points(server, num):
    until = time.monotonic() + 60
    while server.num_points() < num:
        assert time.monotonic() < until, "the server never showed the stage"
        time.sleep(0.05)


def test_a_server_that_comes_dies_and_comes_back_while_a_stage_runs(server, workspace, tracker):
    projector = start_projector(workspace, store=server.address)
    stage = start_stage(workspace)
    server.start()
    wait_for_points(server, 5)
    server.kill()
    shown = server.num_points()
    time.sleep(5.0)  # the stage goes on; the projector notices
    (workspace / "train" / "enough").touch()
    assert stage.wait(timeout=60) == 0
    assert server.num_points() == shown
    assert longest_step_s(workspace) < 2.0  # one attempt at a dead server alone may take longer
    server.start()
    assert projector.finish(120).complete
    tracker.forget()
    undisturbed = tracker.new_store("undisturbed")
    assert tracker.project(undisturbed).complete
    assert tracker.dump(server.address) == tracker.dump(undisturbed)


def test_a_server_killed_in_the_middle_of_a_sync(server, begin, pipeline, workspace, tracker):
    stage = begin("gate")
    for step in range(6000):
        stage.metrics({"gate/a": step / 7, "gate/b": step / 3}, step=step)
    stage.ended("FINISHED", RunOutcome.OK)
    stage.close()
    server.start()
    projector = start_projector(workspace, store=server.address)
    wait_for_points(server, 2000)
    server.kill()
    assert server.num_points() < 12_000
    cut = projector.finish(120)
    assert cut.left > 0
    assert "cannot be reached" in cut.sentence
    server.start()
    assert sync(workspace, store=server.address).complete
    undisturbed = tracker.new_store("undisturbed")
    assert tracker.project(undisturbed).complete
    assert tracker.dump(server.address) == tracker.dump(undisturbed)
