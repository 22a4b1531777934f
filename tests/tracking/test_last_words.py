"""Under ``mlflow run``, a command that could write no journal still says why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from omni_mlflow.tracking.last_words import main
from tests.conftest import PROJECT, Place

REASON = "the disk is full"


@pytest.fixture
def client(empty: Place, monkeypatch) -> mlflow.MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", empty.store)
    return mlflow.MlflowClient(empty.store)


def made_by_mlflow_run(client: mlflow.MlflowClient, *, project: Path = PROJECT, **tags: str) -> str:
    made: dict[str, str] = {
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": f"file://{project}",
        "mlflow.project.entryPoint": "train",
    }
    return client.create_run("0", tags={**made, **tags}).info.run_id


def say(run_id: str, monkeypatch, *more: str) -> None:
    words = ["last_words", run_id, "refused", REASON, "--project", str(PROJECT), *more]
    monkeypatch.setattr(sys, "argv", words)
    main()


def test_a_run_that_no_stage_entered_gets_stage_outcome_and_reason(client, monkeypatch):
    run_id = made_by_mlflow_run(client)
    say(run_id, monkeypatch)
    tags = client.get_run(run_id).data.tags
    assert tags["omni.stage"] == "train"
    assert tags["omni.outcome"] == "refused"
    assert tags["mlflow.note.content"] == REASON


def test_where_mlflow_run_is_gone_too_the_run_is_ended(client, monkeypatch):
    run_id = made_by_mlflow_run(client)
    say(run_id, monkeypatch, "--end")
    assert client.get_run(run_id).info.status == "KILLED"


def test_a_run_made_from_an_address_or_for_another_checkout_is_told_too(client, monkeypatch, tmp_path):
    (tmp_path / "MLproject").write_bytes((PROJECT / "MLproject").read_bytes())
    for source in ("https://example.org/omni-mlflow.git#main", str(tmp_path)):
        run_id = made_by_mlflow_run(client, **{"mlflow.source.name": source})
        say(run_id, monkeypatch)
        assert client.get_run(run_id).data.tags["mlflow.note.content"] == REASON


def test_a_run_of_another_project_one_that_was_entered_and_one_that_ended_are_left_alone(
    client, monkeypatch, tmp_path
):
    ended = made_by_mlflow_run(client)
    client.set_terminated(ended)
    entered = made_by_mlflow_run(client, **{"omni.run_key": "one"})
    for run_id in (made_by_mlflow_run(client, project=tmp_path), entered, ended):
        before = client.get_run(run_id).data.tags
        say(run_id, monkeypatch)
        assert client.get_run(run_id).data.tags == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "exit_code", "reason"),
    [
        (("train", "--workspace", "/proc/nowhere"), 1, "/proc/nowhere: No such file or directory"),
        (("train", "--limit", "abc"), 2, "No such option"),
    ],
)
def test_a_command_that_cannot_begin_says_why_in_the_run_that_mlflow_run_made(
    empty, client, typed, exit_code, reason
):
    run_id = made_by_mlflow_run(client)
    done = subprocess.run(
        [sys.executable, "-m", "omni_mlflow", *typed],
        env={**empty.environment, "MLFLOW_RUN_ID": run_id},
        cwd=empty.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code
    assert reason in client.get_run(run_id).data.tags["mlflow.note.content"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C (SIGINT)"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_before_any_stage_began_is_the_reason_in_the_run(empty, client, tmp_path, number, name):
    """The command stands still where it looks at its workspace, as it does on a network disk that hangs."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from omni_mlflow import workspace_trouble\n"
        "def stand_still(_): print('looking', flush=True); time.sleep(60)\n"
        "workspace_trouble.trouble_with = stand_still\n"
    )
    run_id = made_by_mlflow_run(client)
    process = subprocess.Popen(
        [sys.executable, "-m", "omni_mlflow", "split"],
        env={
            **empty.environment,
            "MLFLOW_RUN_ID": run_id,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)]),
        },
        cwd=empty.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "looking\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    tags = client.get_run(run_id).data.tags
    assert tags["omni.outcome"] == "killed"
    assert tags["mlflow.note.content"] == f"stopped by {name} before any stage began"
