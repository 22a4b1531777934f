"""A real tracking server is absent, killed and started again; the store ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

from omni_mlflow.events import JOURNAL_NAME, Metrics, RunOutcome, read_events
from omni_mlflow.tracking import start_projector, sync

pytestmark = pytest.mark.slow


class Server:
    """One ``mlflow server`` on one database and one port, which comes and goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "server.db"
        # As an administrator would set it up: the database is there, our experiment is not.
        subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{self.database}"], check=True
        )
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 120
        while time.monotonic() < until and not self._is_healthy():
            time.sleep(0.3)
        assert self._is_healthy(), (self.folder / "server.log").read_text()[-2000:]

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def num_points(self) -> int:
        with sqlite3.connect(self.database) as database:
            return int(database.execute("select count(*) from metrics").fetchone()[0])

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


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
