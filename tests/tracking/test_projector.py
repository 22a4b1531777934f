"""The projector process: it follows stages, outlives their death, and no store trouble reaches them."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking import start_projector, sync
from omni_mlflow.tracking.command import ProjectorHandle
from omni_mlflow.tracking.projector import Projector

FINISH_S = 60


@pytest.fixture
def final_pass(workspace):
    """Make the final pass of a projector, in this process."""

    def run(store):
        return Projector(workspace, store=store, project=workspace.parent).finish()

    return run


def finish(record):
    record.ended("FINISHED", RunOutcome.OK)
    record.close()


def wait_until(condition, *, seconds=30.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_rows_are_shown_while_the_stage_runs_and_all_of_them_at_the_end(begin, workspace, store, tracker):
    projector = start_projector(workspace, store=store)
    stage = begin("train")
    stage.metrics({"train/loss": 2.0}, step=1)
    opened = tracker.client(store)
    assert wait_until(
        lambda: [run.data.metrics for run in opened.search_runs(["1"])] == [{"train/loss": 2.0}]
    )
    stage.metrics({"train/loss": 1.0}, step=2)
    for for_the_stage_alone in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(projector.pid, for_the_stage_alone)
    finish(stage)
    report = projector.finish(FINISH_S)
    assert (report.complete, report.projected) == (True, 4)
    [run] = opened.search_runs(["1"])
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"train/loss": 1.0})


@pytest.mark.slow
def test_a_projector_that_dies_alone_is_started_again_while_the_stage_runs(
    begin, workspace, store, tracker, monkeypatch
):
    monkeypatch.setattr("omni_mlflow.tracking.command._RESTART_AFTER_S", 0.1)
    projector = start_projector(workspace, store=store)
    stage = begin("train")
    stage.metrics({"train/loss": 2.0}, step=1)
    opened = tracker.client(store)
    assert wait_until(lambda: [run.data.metrics for run in opened.search_runs(["1"])] != [])
    first = projector.pid
    os.kill(first, signal.SIGKILL)
    stage.metrics({"train/loss": 1.0}, step=2)
    assert wait_until(
        lambda: [run.data.metrics for run in opened.search_runs(["1"])] == [{"train/loss": 1.0}]
    )
    assert projector.pid != first
    finish(stage)
    report = projector.finish(FINISH_S)
    assert report.complete
    assert report.notes == (
        f"the projector died and was started again once, see {workspace / 'projector.log'}",
    )
    undisturbed = tracker.new_store("undisturbed")
    tracker.forget()
    tracker.project(undisturbed)
    assert tracker.dump(store) == tracker.dump(undisturbed)


@pytest.mark.slow
def test_a_projector_that_dies_of_its_own_start_is_not_started_over_and_over(workspace, store, monkeypatch):
    monkeypatch.setattr("omni_mlflow.tracking.command._RESTART_AFTER_S", 0.1)
    monkeypatch.setattr("omni_mlflow.tracking.command._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("omni_mlflow.tracking.command.PROJECTOR", "omni_mlflow.no_such_module")
    projector = start_projector(workspace, store=store)
    time.sleep(2.0)
    report = projector.finish(FINISH_S)
    started = (workspace / "projector.log").read_text().count("No module named")
    assert 2 <= started <= 5  # after 0.1, 0.3, 0.7 and 1.5 s
    assert f"started again {'once' if started == 2 else f'{started - 1} times'}" in report.notes[0]


def test_the_projector_of_a_killed_command_ends_its_runs_and_then_itself(workspace, store, tracker):
    program = (
        "import pathlib, time\n"
        "from omni_mlflow.record import RunRecord\n"
        "from omni_mlflow.tracking import start_projector\n"
        f"workspace = pathlib.Path({str(workspace)!r})\n"
        f"projector = start_projector(workspace, store={store!r})\n"
        "record = RunRecord(workspace / 'train')\n"
        "record.started('train', parent=None, mlflow_run_id=None, mlflow_experiment_id=None)\n"
        "print(projector.pid, flush=True); time.sleep(60)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    assert command.stdout is not None
    projector_pid = int(command.stdout.readline())
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    opened = tracker.client(store)
    assert wait_until(lambda: [run.info.status for run in opened.search_runs(["1"])] == ["KILLED"])
    [run] = opened.search_runs(["1"])
    assert "died without ending this run" in run.data.tags["mlflow.note.content"]
    assert wait_until(lambda: not _runs(projector_pid))


def _runs(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"  # noqa: PTH123
    except OSError:
        return False


def test_two_projectors_at_once_end_as_one_does(pipeline, workspace, tracker):
    alone, shared = tracker.new_store("alone"), tracker.new_store("shared")
    tracker.project(alone)
    tracker.forget()
    both = [start_projector(workspace, store=shared) for _ in range(2)]
    reports = [projector.finish(FINISH_S) for projector in both]
    assert all(report.complete for report in reports)
    assert tracker.dump(shared) == tracker.dump(alone)


def test_without_a_server_a_command_is_told_in_seconds_and_nothing_is_lost(
    pipeline, workspace, final_pass, store, tracker
):
    with _free_port() as port:
        started = time.monotonic()
        report = final_pass(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 10
    assert (report.projected, report.left) == (0, _rows(workspace))
    assert f"the tracking store http://127.0.0.1:{port} cannot be reached" in report.sentence
    assert "omni-mlflow sync" in report.sentence
    assert final_pass(store).complete
    other = tracker.new_store("other")
    tracker.project(other)
    assert tracker.dump(store) == tracker.dump(other)


def test_wrong_credentials_are_called_by_their_name(pipeline, final_pass, capfd):
    with _server_that_answers(401) as address:
        report = final_pass(address.replace("://", "://ann:secret@"))
    assert "refuses the credentials; set MLFLOW_TRACKING_USERNAME" in report.sentence
    assert "secret" not in report.sentence
    assert "secret" not in "".join(capfd.readouterr())


def test_a_server_that_is_no_tracking_server_is_called_so(pipeline, final_pass):
    with _server_that_answers(404) as address:
        assert "is no MLflow tracking server" in final_pass(address).sentence


def test_a_store_of_another_mlflow_version_says_what_to_do(pipeline, workspace, final_pass, store):
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("update alembic_version set version_num = 'ffff'")
    report = final_pass(store)
    assert "was made by another version of MLflow" in report.sentence
    assert report.left == _rows(workspace)


def test_a_file_that_is_no_database_is_called_so(pipeline, final_pass, tmp_path):
    (tmp_path / "notes.db").write_text("not a database " * 100)
    assert "is not a SQLite database" in final_pass(f"sqlite:///{tmp_path}/notes.db").sentence


def test_a_projection_that_takes_too_long_is_cut_short_and_says_so(pipeline, workspace, store):
    report = start_projector(workspace, store=store).finish(0.01)
    assert report.failure == "the projection took longer than 0.01 s"
    assert report.left == _rows(workspace)


def test_a_server_that_accepts_and_never_answers_costs_seconds(pipeline, workspace, store, tracker):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        projector = start_projector(workspace, store=address)
        silent.accept()  # it has asked, and waits
        started = time.monotonic()
        report = projector.finish(120, patience_s=2)
    assert time.monotonic() - started < 10
    assert (report.projected, report.left) == (0, _rows(workspace))
    assert f"the tracking store {address} has not answered for 2 s" in report.sentence
    assert "omni-mlflow sync" in report.sentence
    assert tracker.project(store).complete


@pytest.mark.slow
def test_a_slow_server_is_waited_for_longer_than_one_answer_may_take(pipeline, workspace):
    with _server_that_answers(404, after_s=1.2) as address:
        projector = start_projector(workspace, store=address)
        started = time.monotonic()
        report = projector.finish(FINISH_S, patience_s=2)
    assert time.monotonic() - started > 2
    assert "is no MLflow tracking server" in report.sentence


def test_a_projector_that_died_is_reported_and_its_rows_are_counted(pipeline, workspace, store):
    projector: ProjectorHandle = start_projector(workspace, store=store)
    os.kill(projector.pid, signal.SIGKILL)
    report = projector.finish(FINISH_S)
    assert "the projector ended with status -9" in report.sentence
    assert report.left == _rows(workspace)


def test_a_store_restored_from_a_backup_gets_back_what_it_has_lost(
    begin, workspace, store, tracker, tmp_path
):
    """Of three runs the backup has one, and one as it was before it ended."""
    finish(begin("select"))
    train = begin("trivial/train")
    train.metrics({"train/loss": 1.0}, step=1)
    tracker.project(store)
    shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "backup.db")
    train.metrics({"train/loss": 0.5}, step=2)
    finish(train)
    finish(begin("trivial/gate"))
    tracker.project(store)
    before = tracker.dump(store)
    shutil.copy(tmp_path / "backup.db", store.removeprefix("sqlite:///"))
    report = sync(workspace, store=store)
    assert report.complete
    assert report.runs == 2
    assert tracker.dump(store) == before
    assert sync(workspace, store=store).projected == 0


def test_its_exit_status_tells_a_shell_that_rows_are_left(pipeline, workspace):
    with _free_port() as port:
        command = [sys.executable, "-m", "omni_mlflow.tracking.projector", str(workspace)]
        command += ["--store", f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, input="finish\n", text=True, capture_output=True, check=False)
    assert done.returncode == 3
    assert "omni-mlflow sync" in done.stderr


def test_a_disk_too_full_for_its_log_does_not_end_it(pipeline, workspace):
    with _free_port() as port, open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "omni_mlflow.tracking.projector", str(workspace)]
        command += ["--store", f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, input=b"finish\n", stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode == 3
    assert b"cannot be reached" in done.stdout


def test_no_stage_imports_mlflow():
    program = (
        "import sys, omni_mlflow.command, omni_mlflow.record, omni_mlflow.tracking\n"
        "from omni_mlflow.backbone_lookup import load_backbone\n"
        "load_backbone('qwen3_omni_lora'), load_backbone('policy_vla_branch')\n"
        "sys.exit(any(name.partition('.')[0] == 'mlflow' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def _rows(workspace):
    return sum(len(path.read_bytes().splitlines()) for path in workspace.rglob("journal.jsonl"))


@contextmanager
def _free_port():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def _server_that_answers(status, *, after_s=0.0):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(after_s)
            self.send_error(status)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.slow
def test_several_processes_may_make_the_store_at_once(pipeline, workspace, tmp_path, tracker):
    store = f"sqlite:///{tmp_path}/new/mlflow.db"
    projectors = [start_projector(workspace, store=store) for _ in range(4)]
    reports = [projector.finish(120, patience_s=120) for projector in projectors]  # three wait for the fourth
    assert [each.sentence for each in reports if not each.complete] == []
    assert len(tracker.dump(store)["runs"]) == 2
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "mlartifacts",
        "mlflow.db",
        "mlflow.db.lock",
    ]
